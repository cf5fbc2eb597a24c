"""Video models that start from an image model's weights: on still clips they begin as that model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.weights.dit import from_official, load_official, to_official
from sora_spec.builders.weights.image_start import start_state
from sora_spec.builders.weights.start import load_start
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from tests.support.transformer_specs import transformer_spec

TEN = {"kind": "class", "classes": 10, "dropout": 0.1}
IMAGE = transformer_spec(depth=2, condition=TEN)
TIMES, LABELS = torch.tensor([3.0, 500.0]), torch.tensor([1, 10])


@pytest.fixture(scope="module")
def image() -> nn.Module:
    """An image model in which nothing is zero."""
    torch.manual_seed(0)
    model = build_denoiser(IMAGE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def file(image: nn.Module) -> dict[str, Tensor]:
    """Its checkpoint in DiT's layout."""
    return to_official(image.state_dict(), IMAGE)


def started(spec: Spec, state: dict[str, Tensor]) -> Any:
    """The network, without its table over frames, which no image model has."""
    torch.manual_seed(1)
    model: Any = build_denoiser(spec).eval()
    model.load_state_dict(start_state(state, model.state_dict(), spec))
    model.frame_positions = lambda x: torch.zeros_like(x[:1, :, :1])
    return model


def video_spec(temporal: str, depth: int = 2, frames: int = 3, patch: int = 1, **settings: Any) -> Spec:
    return transformer_spec(depth=depth, frames=frames, temporal=temporal, patch=(patch, 2), condition=TEN, **settings)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (video_spec("alternating", depth=4), "its 2 blocks become the even ones"),
        (video_spec("factorized"), "the attention across frames of all 2 blocks is left at its start"),
        (video_spec("joint", frames=1), "the table over frames is computed"),
        (video_spec("joint", frames=2, patch=2), "the head is repeated for each"),
    ],
    ids=["alternating", "factorized", "joint", "joint, patches of two frames"],
)
def test_a_still_clip_begins_as_the_image(
    spec: Spec, said: str, image: nn.Module, file: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    model, picture = started(spec, file), torch.randn(2, 4, 1, 8, 8)
    clip = picture.expand(-1, -1, spec.clip.frames, -1, -1)
    with torch.no_grad():
        wanted = image(picture, TIMES, LABELS).expand(-1, -1, spec.clip.frames, -1, -1)
        torch.testing.assert_close(model(clip, TIMES, LABELS), wanted, rtol=1e-4, atol=1e-5)
    assert said in capsys.readouterr().err


def test_as_many_blocks_are_taken_one_to_one(file: dict[str, Tensor], capsys: pytest.CaptureFixture[str]) -> None:
    model = started(video_spec("alternating"), file)
    own = from_official(file, IMAGE)
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    assert "taken one to one, as Latte does" in capsys.readouterr().err


@pytest.mark.parametrize("condition", [{"kind": "class", "classes": 3, "dropout": 0.1}, {"kind": "none"}])
def test_a_table_of_other_labels_is_left_out(
    condition: dict[str, Any], file: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = transformer_spec(depth=2, condition=condition)
    model = build_denoiser(spec)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(start_state(file, fresh, spec))
    own = from_official(file, IMAGE)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name == "condition_embed.table.weight" else own[name]), name
    assert "its table of 11 labels is left out" in capsys.readouterr().err


def test_a_file_without_labels_starts_a_model_with_labels(file: dict[str, Tensor]) -> None:
    bare = {name: tensor for name, tensor in file.items() if not name.startswith("y_embedder.")}
    model = build_denoiser(IMAGE)
    table = model.state_dict()["condition_embed.table.weight"].clone()
    model.load_state_dict(start_state(bare, model.state_dict(), IMAGE))
    assert torch.equal(model.state_dict()["condition_embed.table.weight"], table)


def test_our_own_image_run_starts_a_video_run(image: nn.Module) -> None:
    spec = video_spec("joint", frames=2, patch=2)
    model, picture = started(spec, dict(image.state_dict())), torch.randn(2, 4, 1, 8, 8)
    with torch.no_grad():
        wanted = image(picture, TIMES, LABELS).expand(-1, -1, 2, -1, -1)
        found = model(picture.expand(-1, -1, 2, -1, -1), TIMES, LABELS)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        (video_spec("alternating"), "it has no table over frames"),
        (video_spec("alternating", depth=4), "it has no table over frames"),
        (video_spec("joint"), "it has no table over frames"),
        (video_spec("factorized"), "it has no attention over frames): training starts from it"),
        (transformer_spec(depth=2, condition={"kind": "class", "classes": 3, "dropout": 0.1}), "a table of 11 labels"),
    ],
)
def test_only_training_starts_so(spec: Spec, hint: str, file: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(file, tmp_path / "dit.pt")
    with pytest.raises(UserError, match=r"dit\.pt: the checkpoint does not fit the spec") as stop:
        load_official(tmp_path / "dit.pt", spec)
    assert stop.value.hint is not None
    assert hint in stop.value.hint
    named = spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"weights": str(tmp_path / "dit.pt")})})
    assert load_start(build_denoiser(named), named)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (video_spec("alternating", depth=3), "does not fit"),
        (video_spec("joint", width=96), "does not fit"),
        (video_spec("joint", frames=2, patch=2, learn_sigma=False), "its head returns 32 values a token of one frame"),
    ],
)
def test_what_no_start_can_be_made_of_is_refused(spec: Spec, message: str, file: dict[str, Tensor]) -> None:
    model = build_denoiser(spec)
    with pytest.raises(UserError, match=message):
        start_state(file, model.state_dict(), spec)


def test_a_video_models_weights_do_not_start_another_kind(file: dict[str, Tensor]) -> None:
    latte = video_spec("alternating")
    official = to_official(build_denoiser(latte).state_dict(), latte)
    spec = video_spec("joint")
    with pytest.raises(UserError, match="does not fit") as caught:
        start_state(official, build_denoiser(spec).state_dict(), spec)
    assert "set it to alternating" in (caught.value.hint or "")
