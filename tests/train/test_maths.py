"""Schedule, moving average, AdamW, accumulation and recomputation against formulas written out here."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sora_spec.disk.run_folder import StageFolder
from sora_spec.errors import UserError
from sora_spec.language.schema.training import AdamW
from sora_spec.train.batch import Pixels
from sora_spec.train.ema import MovingAverage
from sora_spec.train.optimizer import build_adamw, clip_gradients
from sora_spec.train.ranks import Ranks
from sora_spec.train.schedule import learning_rate
from sora_spec.train.settings import stage_settings
from sora_spec.train.start import build_task, train_stage
from sora_spec.train.streams import normal, seeded, stream
from sora_spec.train.trainer import Trainer

CPU = Ranks(0, 1, torch.device("cpu"))


def run_steps(spec, steps: int) -> tuple[Trainer, list[float]]:
    from sora_spec.train.data.loader import load_batches

    trainer = Trainer(build_task(spec, "denoiser", None, CPU), CPU)
    order = trainer.order(0)
    batches = load_batches(trainer.task.dataset, order, 0)
    return trainer, [trainer.step(step, batches, order).result().terms["loss"] for step in range(steps)]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.trained.module.state_dict().items()}


def test_learning_rate(tiny_spec) -> None:
    spec = tiny_spec(train__optimizer={"kind": "adamw", "lr": 1.0}, train__warmup=4, train__steps=12)
    own = stage_settings(spec, "denoiser").own
    assert [learning_rate(own, k) for k in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    cosine = own.model_copy(update={"schedule": "cosine"})
    assert learning_rate(cosine, 3) == 1.0
    assert learning_rate(cosine, 4) == 1.0
    assert learning_rate(cosine, 8) == pytest.approx(0.5)
    assert learning_rate(cosine, 11) == pytest.approx((1 + math.cos(math.pi * 7 / 8)) / 2)
    assert learning_rate(cosine, 12) == pytest.approx(0.0)
    assert learning_rate(own.model_copy(update={"warmup": 0}), 0) == 1.0


def test_moving_average_has_its_closed_form() -> None:
    """After n updates with constant decay d: d^n·w0 + Σ (1−d)·d^(n−k)·w_k."""
    module = nn.Linear(3, 2).double()
    module.register_buffer("count", torch.zeros(()))
    average = MovingAverage(module, decay=0.8, warmup=False)
    history = [module.weight.detach().clone()]
    for step in range(1, 6):
        with torch.no_grad():
            module.weight.copy_(torch.randn(2, 3, generator=torch.Generator().manual_seed(step)))
            module.get_buffer("count").fill_(step)
        history.append(module.weight.detach().clone())
        average.update(step)
    want = 0.8**5 * history[0] + sum(0.2 * 0.8 ** (5 - k) * history[k] for k in range(1, 6))
    assert torch.allclose(average.average["weight"], want, rtol=1e-12)
    assert average.average["count"] == 5
    with average.in_place():
        assert torch.equal(module.weight, average.average["weight"])
    assert torch.equal(module.weight, history[-1])


def test_decay_warms_up() -> None:
    module = nn.Linear(1, 1)
    warming, constant = MovingAverage(module, 0.99, True), MovingAverage(module, 0.99, False)
    assert [warming.decay_at(step) for step in (1, 8, 890, 10_000)] == [2 / 11, 0.5, 891 / 900, 0.99]
    assert constant.decay_at(1) == 0.99


def test_adamw_step_equals_the_paper() -> None:
    """arXiv 1711.05101, algorithm 2, with the bias corrections written out; three steps with fixed gradients."""
    settings = AdamW(lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3)
    module = nn.Linear(2, 1, bias=False).double()
    optimizer = build_adamw(module, settings, torch.device("cpu"))
    theta = module.weight.detach().clone()
    m = v = torch.zeros_like(theta)
    for t in range(1, 4):
        gradient = torch.tensor([[0.5 * t, -2.0]], dtype=torch.float64)
        module.weight.grad = gradient.clone()
        optimizer.step()
        m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient**2
        theta = theta - 0.1 * 0.3 * theta
        theta = theta - 0.1 * (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-3)
    assert torch.allclose(module.weight, theta, rtol=1e-10)


def test_gradients_are_scaled_to_the_limit_and_the_norm_is_that_before() -> None:
    module = nn.Linear(2, 1)
    assert module.bias is not None
    module.weight.grad, module.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert clip_gradients(module, None) == 5.0
    assert module.bias.grad.item() == 4.0
    assert clip_gradients(module, 1.0) == 5.0
    assert module.bias.grad.item() == pytest.approx(0.8, rel=1e-5)
    assert clip_gradients(module, 2.0) == pytest.approx(1.0, rel=1e-5)
    assert module.bias.grad.item() == pytest.approx(0.8, rel=1e-5)


def test_gradients_are_clipped_from_the_step_that_is_asked_for(tiny_spec) -> None:
    def after(**train: object) -> torch.Tensor:
        trained = weights(run_steps(tiny_spec(**train), 2)[0])
        return torch.cat([tensor.flatten() for tensor in trained.values()])

    never, late = after(train__clip_grad=None), after(train__clip_grad=1e-9, train__clip_grad_from=2)
    second, always = after(train__clip_grad=1e-9, train__clip_grad_from=1), after(train__clip_grad=1e-9)
    assert torch.equal(late, never)
    assert not torch.equal(second, late)
    assert not torch.equal(second, always)


def test_tf32_is_switched_as_the_spec_says(tiny_spec) -> None:
    switch = torch.backends.cuda.matmul
    before = switch.allow_tf32
    try:
        for allowed in (True, False):
            build_task(tiny_spec(train__tf32=allowed), "denoiser", None, CPU)
            assert switch.allow_tf32 is allowed
            assert torch.backends.cudnn.allow_tf32
    finally:
        switch.allow_tf32 = before


def test_accumulation_is_the_same_maths(tiny_spec) -> None:
    one, losses = run_steps(tiny_spec(), 3)
    two, other = run_steps(tiny_spec(train__accumulation=4), 3)
    assert losses == pytest.approx(other, rel=1e-5)
    for name, tensor in weights(one).items():
        assert torch.allclose(tensor, weights(two)[name], atol=2e-5), name


def test_recomputation_changes_no_bit(tiny_spec) -> None:
    plain, losses = run_steps(tiny_spec(), 3)
    again, other = run_steps(tiny_spec(train__recompute={"kind": "blocks", "every": 1}), 3)
    assert losses == other
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(plain).items())


def test_recomputation_keeps_only_block_inputs(tiny_spec) -> None:
    """Counted by autograd itself: fewer bytes are saved for the backward pass."""

    def saved_bytes(spec) -> int:
        task = build_task(spec, "denoiser", None, CPU)
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        latents, time = torch.zeros(2, 3, 4, 16, 16), torch.zeros(2)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            task.module(latents, time, torch.zeros(2, dtype=torch.int64))
        return total

    assert saved_bytes(tiny_spec(train__recompute={"kind": "blocks", "every": 1})) < 0.4 * saved_bytes(tiny_spec())


def test_a_short_run_learns(tiny_spec) -> None:
    spec = tiny_spec(train__steps=60, train__batch=16, train__optimizer={"kind": "adamw", "lr": 4e-3})
    _, losses = run_steps(spec, 60)
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])


def test_dropout_reaches_the_null_label_at_its_rate(tiny_spec) -> None:
    task = build_task(tiny_spec(train__batch=512, condition__dropout=0.25), "denoiser", None, CPU)
    labels = torch.zeros(512, dtype=torch.int64)
    frames = torch.zeros(512, 1, 1, 1, 3, dtype=torch.uint8)
    dropped = task._condition(Pixels(frames, labels), 3, torch.arange(512)).labels  # pyright: ignore[reportAttributeAccessIssue]
    assert set(dropped.tolist()) == {0, 10}
    assert 0.18 < (dropped == 10).float().mean() < 0.32
    few = Pixels(frames[:8], labels[:8])
    part = task._condition(few, 3, torch.arange(100, 108)).labels  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.equal(part, dropped[100:108])


def test_no_checkpoint_is_made_of_a_step_whose_loss_is_no_number(tiny_spec, tmp_path) -> None:
    spec = tiny_spec(train__optimizer={"kind": "adamw", "lr": 1e12}, train__clip_grad=None, train__checkpoint_every=1)
    with pytest.raises(UserError, match=r"stopped at step 2: the loss is .*; the last good checkpoint is .*00000001"):
        train_stage(spec, tmp_path / "run")
    stage = StageFolder(tmp_path / "run" / "denoiser")
    assert [path.name for path in stage.checkpoints()] == ["step-00000001"]
    assert len(stage.metrics_path.read_text().splitlines()) == 1


def test_streams_are_normal_independent_and_leave_the_global_one_alone() -> None:
    state = torch.random.get_rng_state()
    draws = normal(0, "noise", range(64), (3, 8, 8))
    with seeded(5, "init"):
        first = torch.rand(3)
    with seeded(5, "init"):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(state, torch.random.get_rng_state())
    assert abs(draws.mean()) < 0.03
    assert abs(draws.std() - 1) < 0.03
    assert torch.equal(draws[7:9], normal(0, "noise", [7, 8], (3, 8, 8)))
    correlation = torch.corrcoef(draws.flatten(1))
    assert (correlation - torch.eye(64)).abs().max() < 0.4
    assert stream(0, "noise", 1).initial_seed() != stream(0, "time", 1).initial_seed()
