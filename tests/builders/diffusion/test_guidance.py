"""Classifier-free guidance: which half comes first, which channels move, where the rest comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sora_spec.builders.diffusion.guidance import build_guided
from sora_spec.builders.diffusion.samplers import NUMPY, Condition, count_steps, evaluations, sample
from sora_spec.errors import UserError

LINEAR = {"kind": "interpolant"}
CLASSES = {"kind": "class", "classes": 10, "dropout": 0.1}


class LabelledNetwork:
    """Returns label + 10·channel + (100 for the second half of the batch), and remembers how it was called."""

    def __init__(self, out_channels: int = 4) -> None:
        self.out_channels = out_channels
        self.calls: list[tuple[Any, Any, Any]] = []

    def __call__(self, x, time, labels):
        self.calls.append((x, time, labels))
        B, _, F, H, W = x.shape
        channel = 10.0 * np.arange(self.out_channels).reshape(1, -1, 1, 1, 1)
        label = np.zeros((B, 1, 1, 1, 1)) if labels is None else labels.astype(float).reshape(-1, 1, 1, 1, 1)
        return (label + channel + np.zeros((B, self.out_channels, F, H, W))).astype(np.float32)


@pytest.fixture
def latents():
    return np.random.default_rng(0).normal(size=(2, 4, 1, 2, 2)).astype(np.float32)


LABELS = np.array([3, 7])


def guided(make_spec, network, latents, steered, condition=CLASSES, **sampler):
    spec = make_spec(LINEAR, {"kind": "euler", "steps": 1, **sampler}, condition)
    return build_guided(spec, network, latents, steered, NUMPY)


def test_three_of_four_channels(make_spec, latents):
    network = LabelledNetwork(8)
    call = guided(make_spec, network, latents, Condition(LABELS), guidance=4.0, guidance_channels=3)
    prediction, rest = call(latents, 0.25)
    # Null label 10; u + s·(c − u) on channels 0..2, c on channel 3 and on the variance.
    for sample_number, label in enumerate([3.0, 7.0]):
        moved = 10 + 4 * (label - 10)
        assert prediction[sample_number, :, 0, 0, 0].tolist() == [moved, moved + 10, moved + 20, label + 30]
        assert rest[sample_number, :, 0, 0, 0].tolist() == [label + 40, label + 50, label + 60, label + 70]


def test_all_channels_by_default_but_never_the_variance(make_spec, latents):
    prediction, rest = guided(make_spec, LabelledNetwork(8), latents, Condition(LABELS), guidance=2.0)(latents, 0.5)
    assert prediction[0, :, 0, 0, 0].tolist() == [-4, 6, 16, 26]
    assert rest[0, :, 0, 0, 0].tolist() == [43, 53, 63, 73]


def test_one_call_conditional_half_first(make_spec, latents):
    network = LabelledNetwork()
    guided(make_spec, network, latents, Condition(LABELS), guidance=1.5)(latents, 0.25)
    ((x, time, labels),) = network.calls
    np.testing.assert_array_equal(x, np.concatenate([latents, latents]))
    assert time.dtype == np.float32
    assert time.tolist() == [0.25] * 4
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 7, 10, 10]


def test_scale_one_is_one_unguided_call(make_spec, latents):
    network = LabelledNetwork()
    prediction, rest = guided(make_spec, network, latents, Condition(LABELS))(latents, 0.25)
    ((x, time, labels),) = network.calls
    assert (x.shape[0], time.shape, labels.tolist()) == (2, (2,), [3, 7])
    assert prediction[:, 0, 0, 0, 0].tolist() == [3, 7]
    assert rest.shape == (2, 0, 1, 2, 2)


def test_scale_zero_is_unconditional(make_spec, latents):
    prediction, _ = guided(make_spec, LabelledNetwork(), latents, Condition(LABELS), guidance=0.0)(latents, 0.25)
    assert prediction[:, 0, 0, 0, 0].tolist() == [10, 10]


def test_no_label_is_the_null_label(make_spec, latents):
    network = LabelledNetwork()
    guided(make_spec, network, latents, Condition(), guidance=4.0)(latents, 0.25)
    ((x, _, labels),) = network.calls
    assert (x.shape[0], labels.tolist()) == (2, [10, 10])


def test_without_a_condition_there_is_no_label_and_no_guidance(make_spec, latents):
    network = LabelledNetwork()
    guided(make_spec, network, latents, Condition(LABELS), {"kind": "none"}, guidance=4.0)(latents, 0.25)
    ((x, _, labels),) = network.calls
    assert (x.shape[0], labels) == (2, None)


def test_guidance_without_a_trained_null_label(make_spec, latents):
    undropped = {"kind": "class", "classes": 10, "dropout": 0.0}
    with pytest.raises(UserError, match="null label"):
        guided(make_spec, LabelledNetwork(), latents, Condition(LABELS), undropped, guidance=2.0)
    with pytest.raises(UserError, match="null label"):
        guided(make_spec, LabelledNetwork(), latents, Condition(), undropped)
    text = {"kind": "text", "encoder": "clip", "pooled": True}
    with pytest.raises(UserError, match="empty prompt"):
        guided(make_spec, LabelledNetwork(), latents, Condition(pooled=np.zeros((2, 512))), text, guidance=2.0)


def test_a_text_is_guided_by_what_stands_for_no_prompt(make_spec, latents):
    def network(x, time, context):
        return np.repeat(context.mean(axis=(1, 2)), 4).reshape(-1, 4, 1, 1, 1) + 0 * x

    text = {"kind": "text", "encoder": "t5", "tokens": 3, "width": 2}
    prompts, null = np.stack([np.full((3, 2), 5.0), np.full((3, 2), 7.0)]), np.full((2, 3, 2), 1.0)
    spec = make_spec(LINEAR, {"kind": "euler", "steps": 1, "guidance": 3.0, "guidance_channels": 3}, text)
    steered = Condition(tokens=prompts, null=Condition(tokens=null))
    out = sample(spec, network, latents, steered, lambda: latents, NUMPY)
    expected = np.array([[1 + 3 * 4] * 3 + [5], [1 + 3 * 6] * 3 + [7]]).reshape(2, 4, 1, 1, 1)
    np.testing.assert_allclose(out - latents, expected + 0 * latents, rtol=1e-5)
    out = sample(spec, network, latents, Condition(null=steered.null), lambda: latents, NUMPY)
    np.testing.assert_allclose(out - latents, 1 + 0 * latents, rtol=1e-5)


def test_a_mask_goes_with_its_tokens_into_both_halves(make_spec, latents):
    """A mean over the tokens that are none of padding; the null prompt has the mask of the prompt."""

    def network(x, time, context, mask):
        mean = (context * mask[..., None]).sum(axis=(1, 2)) / (2 * mask.sum(axis=1))
        return np.repeat(mean, 4).reshape(-1, 4, 1, 1, 1) + 0 * x

    text = {"kind": "text", "encoder": "t5", "tokens": 3, "width": 2}
    spec = make_spec(LINEAR, {"kind": "euler", "steps": 1, "guidance": 3.0}, text)
    tokens = np.array([[5.0, 9.0, 100.0], [7.0, 100.0, 100.0]])[..., None].repeat(2, 2)
    null = Condition(tokens=np.array([[1.0, 3.0, 50.0]] * 2)[..., None].repeat(2, 2))
    steered = Condition(tokens=tokens, mask=np.array([[1, 1, 0], [1, 0, 0]]), null=null)
    out = sample(spec, network, latents, steered, lambda: latents, NUMPY)
    # Means 7 and 7; of the null prompt 2 and 1; u + 3·(c − u).
    expected = np.array([[2 + 3 * 5] * 4, [1 + 3 * 6] * 4]).reshape(2, 4, 1, 1, 1)
    np.testing.assert_allclose(out - latents, expected + 0 * latents, rtol=1e-5)


def test_guidance_reaches_the_samples(make_spec, latents):
    # One Euler step from t = 0 to 1 on the linear path adds the guided velocity.
    spec = make_spec(LINEAR, {"kind": "euler", "steps": 1, "guidance": 3.0, "guidance_channels": 3}, CLASSES)
    out = sample(spec, LabelledNetwork(8), latents, Condition(LABELS), lambda: latents, NUMPY)
    per_label = np.array([[10 + 3 * (label - 10)] * 3 + [label] for label in (3, 7)])
    expected = per_label + np.array([0, 10, 20, 30])
    np.testing.assert_allclose(out - latents, expected.reshape(2, 4, 1, 1, 1) + 0 * latents, rtol=1e-5)


def test_half_precision_networks_do_not_lower_the_precision_of_guidance(make_spec, latents):
    inner = LabelledNetwork()
    call = guided(make_spec, lambda *a: inner(*a).astype(np.float16), latents, Condition(LABELS), guidance=7.001)
    prediction, _ = call(latents, 0.25)
    assert prediction.dtype == np.float32
    assert prediction[0, 0, 0, 0, 0] == pytest.approx(10 - 7 * 7.001, rel=1e-6)


SAMPLERS = [
    ({"kind": "ddpm", "variance": "fixed_small"}, {"kind": "ddpm", "steps": 5}, 5),
    ({"kind": "ddpm"}, {"kind": "ddim", "steps": 7}, 7),
    (LINEAR, {"kind": "euler", "steps": 6}, 6),
    (LINEAR, {"kind": "heun", "steps": 6}, 12),
    (LINEAR, {"kind": "euler_maruyama", "steps": 9}, 10),
    (LINEAR, {"kind": "euler_maruyama", "steps": 9, "last_step": "none"}, 9),
    (LINEAR, {"kind": "euler_maruyama", "steps": 9, "last_step_size": 0.0}, 9),
]


@pytest.mark.parametrize(("objective", "sampler", "calls"), SAMPLERS)
def test_steps_are_counted_as_they_are_taken(make_spec, latents, objective, sampler, calls):
    network, ticks = LabelledNetwork(8), []
    spec = make_spec(objective, sampler, CLASSES)
    out = sample(
        spec, network, latents, Condition(LABELS), lambda: np.zeros_like(latents), NUMPY, progress=ticks.append
    )
    assert len(network.calls) == calls == count_steps(spec) == evaluations(spec)
    assert ticks == [1] * calls
    assert np.isfinite(out).all()
    guided_spec = make_spec(objective, {**sampler, "guidance": 2.0}, CLASSES)
    assert (count_steps(guided_spec), evaluations(guided_spec)) == (calls, 2 * calls)


def test_the_adaptive_sampler_has_no_count(make_spec):
    spec = make_spec(LINEAR, {"kind": "dopri5"})
    assert count_steps(spec) is None
    assert evaluations(spec) is None


@pytest.mark.parametrize(
    ("objective", "sampler"),
    [({"kind": "ddpm"}, "euler"), ({"kind": "ddpm"}, "dopri5"), (LINEAR, "ddpm"), (LINEAR, "ddim")],
)
def test_samplers_of_the_other_objective_are_refused(make_spec, latents, objective, sampler):
    spec = make_spec(objective, {"kind": sampler})
    with pytest.raises(UserError, match=f"{sampler} cannot sample"):
        sample(spec, LabelledNetwork(8), latents, Condition(), lambda: latents, NUMPY)
