"""Noise belongs to a sample: seed and index decide it, the batch does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_spec.builders.diffusion.noise import NoiseStream
from sora_spec.errors import UserError

SHAPE = (3, 2, 4, 5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    indices=st.lists(st.integers(0, 10_000), min_size=1, max_size=6, unique=True),
    data=st.data(),
)
def test_a_sample_is_the_same_in_every_batch(seed, indices, data):
    chosen = data.draw(st.sampled_from(indices))
    together, alone = NoiseStream(seed, indices, SHAPE), NoiseStream(seed, [chosen], SHAPE)
    for _ in range(3):
        np.testing.assert_array_equal(together.draw()[indices.index(chosen)], alone.draw()[0])


def test_the_generator_is_numpys_philox_keyed_by_seed_and_index():
    stream = NoiseStream(7, [0, 41], SHAPE)
    reference = np.random.Generator(np.random.Philox(key=7 + (41 << 64)))
    for _ in range(2):
        np.testing.assert_array_equal(stream.draw()[1], reference.standard_normal(SHAPE, np.float32))


def test_draws_are_standard_normal_and_unrelated():
    stream = NoiseStream(0, range(8), (1, 1, 100, 100))
    first, second = stream.draw(), stream.draw()
    assert first.dtype == np.float32
    assert first.shape == (8, 1, 1, 100, 100)
    assert abs(first.mean()) < 5 / np.sqrt(first.size)
    assert abs(first.std() - 1) < 5 / np.sqrt(2 * first.size)
    rows = np.concatenate([first, second]).reshape(16, -1)
    correlation = np.corrcoef(np.concatenate([rows, NoiseStream(1, [0], (1, 1, 100, 100)).draw().reshape(1, -1)]))
    assert np.abs(correlation - np.eye(17)).max() < 0.06


def test_initial_is_the_first_draw_and_is_never_drawn_again():
    reference = NoiseStream(3, [5], SHAPE)
    first, second = reference.draw(), reference.draw()
    stream = NoiseStream(3, [5], SHAPE)
    np.testing.assert_array_equal(stream.initial, first)
    np.testing.assert_array_equal(stream.draw(), second)
    np.testing.assert_array_equal(stream.initial, first)
    np.testing.assert_array_equal(reference.initial, first)


@pytest.mark.parametrize(("seed", "indices"), [(-1, [0]), (2**64, [0]), (0, [3, -2])])
def test_what_is_no_64_bit_word_is_the_users_error(seed, indices):
    with pytest.raises(UserError, match="outside"):
        NoiseStream(seed, indices, SHAPE)
