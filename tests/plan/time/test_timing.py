"""The formula for time: laws of it, and the shape of the curves that it makes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_spec.language.loading import load_spec
from sora_spec.plan import Job, find_device, make_plan
from sora_spec.plan.devices.hardware import device_names
from sora_spec.plan.memory.schedule import Row
from sora_spec.plan.time.timing import compute_seconds, message_seconds

A100 = find_device("a100-80gb")
GENTLE = settings(max_examples=60, deadline=None, database=None)


def product(rows: int, columns: int, inner: int) -> Row:
    """A matrix product in bf16."""
    return ("linear", False, 2 * rows * columns * inner, 2 * (rows * columns + inner * (rows + columns)), 1)


def attention(sequences: int, tokens: int, width: int, backward: bool = False) -> Row:
    """Fused attention in bf16."""
    return ("attention", backward, 4 * sequences * tokens**2 * width, 8 * sequences * tokens * width, 1)


def reached(row: Row) -> float:
    """Share of the matrix rate that one op reaches."""
    return row[2] / compute_seconds((row,), A100, "bf16").likely / A100.rate("bf16")


def test_efficiency_rises_with_the_smallest_extent_and_saturates_below_the_devices_share() -> None:
    shares = [reached(product(65_536, 4096, inner)) for inner in (32, 128, 512, 2048, 8192)]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert 0.85 * A100.efficiency.likely < shares[-1] < A100.efficiency.likely


def test_efficiency_rises_with_size_at_one_shape() -> None:
    shares = [reached(product(side, side, side)) for side in (64, 256, 1024, 4096, 16_384)]
    assert shares == sorted(shares)
    assert shares[0] < 0.001


def test_attention_is_slower_than_products_and_over_short_sequences_slower_still() -> None:
    shares = [reached(attention(4096 // tokens * 16, tokens, 1024)) for tokens in (16, 256, 4096)]
    assert shares == sorted(shares)
    assert shares[-1] < A100.attention.likely < A100.efficiency.likely
    assert reached(attention(16, 4096, 1024, backward=True)) < shares[-1]


@GENTLE
@given(
    st.lists(st.tuples(st.integers(1, 10**13), st.integers(1, 10**10), st.integers(1, 100)), min_size=1, max_size=20),
    st.sampled_from(["bf16", "fp32"]),
    st.booleans(),
    st.sampled_from(device_names()),
)
def test_more_work_never_takes_less_time(
    sizes: list[tuple[int, int, int]], precision: Any, tf32: bool, on: str
) -> None:
    kinds = ("linear", "attention", "conv", "elementwise")
    rows: list[Row] = [
        (kinds[i % 4], i % 3 == 0, flops * (i % 4 < 3), moved, count) for i, (flops, moved, count) in enumerate(sizes)
    ]
    device = find_device(on)
    fewer = compute_seconds(tuple(rows[:-1]), device, precision, tf32)
    whole = compute_seconds(tuple(rows), device, precision, tf32)
    larger: tuple[Row, ...] = tuple((kind, back, 2 * flops, 2 * moved, n) for kind, back, flops, moved, n in rows)
    assert all(
        a <= b <= c for a, b, c in zip(fewer, whole, compute_seconds(larger, device, precision, tf32), strict=True)
    )
    assert whole.low <= whole.likely <= whole.high


def test_many_small_ops_take_at_least_their_launches() -> None:
    seconds = compute_seconds((("elementwise", False, 0, 512, 10_000),), A100, "bf16")
    assert seconds.low >= 10_000 * 3e-6


def test_fp32_products_use_tensor_cores_only_where_they_may() -> None:
    row = (product(8192, 8192, 8192),)
    slow, fast = (compute_seconds(row, A100, "fp32", tf32).likely for tf32 in (False, True))
    assert 5 < slow / fast < 12  # 156 to 19.5 TFLOP/s, of which different shares are reached


def test_messages_of_a_ring_take_what_the_link_does() -> None:
    # An all-to-all of 1 GB from each of 8 H100: 450 GB/s in one direction, of which NCCL reaches 50 to 90 %.
    seconds = message_seconds(1e9, find_device("h100"), 8)
    assert seconds.low == pytest.approx(1 / (450 * 0.9))
    assert seconds.high == pytest.approx(1 / (450 * 0.5))
    assert message_seconds(1e9, find_device("h100"), 16).likely > 5 * seconds.likely  # the network is slower
    assert message_seconds(1e9, find_device("rtx4090"), 8).likely > 10 * seconds.likely


def step(*overrides: str) -> float:
    """Seconds of a step of DiT-XL/2 on 8 A100."""
    spec = load_spec("dit", ["train.precision=bf16", *overrides])
    return make_plan(Job(spec, A100, 8)).times.step.seconds.likely


def test_states_in_host_memory_cost_time_and_kept_weights_save_messages() -> None:
    assert step("parallel.offload=true") > 1.2 * step()
    assert step("train.ema_device=cpu") > step()
    assert step("parallel.reshard=false") <= step()


def test_a_larger_batch_uses_the_device_better_until_it_is_busy() -> None:
    each: list[float] = []
    for batch in (1, 4, 16, 64, 256):
        spec = load_spec("dit", ["train.precision=bf16", "parallel.shard=1", f"train.batch={batch}"])
        each.append(make_plan(Job(spec, A100, 1)).times.step.seconds.likely / batch)
    assert each == sorted(each, reverse=True)
    assert each[0] > 3 * each[-1]
    assert each[-2] < 1.1 * each[-1]
