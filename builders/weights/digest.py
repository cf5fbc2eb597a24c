"""A digest of a module's weights, and whether a denoiser meets the VAE that it learnt with."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from sora_spec import output
from sora_spec.builders.vae.interface import IdentityModule
from sora_spec.disk.checkpoints import State, read_state
from sora_spec.disk.run_folder import RunFolder


def hash_weights(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of a module's parameters and buffers, in name order."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def vae_digest(vae: nn.Module) -> str | None:
    """Digest of a VAE's weights; None where it has none."""
    return None if isinstance(vae, IdentityModule) else hash_weights(vae)


def warn_of_other_vae(run: RunFolder, vae: nn.Module) -> None:
    """Warn where the denoiser of a run learnt on latents of another VAE than the one that will decode its own."""
    learnt = _newest(run)
    if learnt is not None and learnt.vae not in (None, vae_digest(vae)):
        output.warn(
            f"the denoiser of {run.path} learnt on latents of another VAE than the one that the run has now: "
            "what it generates may be decoded wrongly"
        )


def warn_of_other_encoder(run: RunFolder, digest: str) -> None:
    """Warn where the denoiser of a run learnt with the features of another text encoder than this one's `digest`."""
    learnt = _newest(run)
    if learnt is not None and learnt.text not in (None, digest):
        output.warn(
            f"the denoiser of {run.path} learnt with another text encoder than the one that condition.encoder names "
            "now: it may not follow prompts"
        )


def _newest(run: RunFolder) -> State | None:
    """What the newest checkpoint of the denoiser knows; a damaged one is told of where its weights are read."""
    newest = run.stage("denoiser").latest()
    try:
        return None if newest is None else read_state(newest)
    except ValueError:
        return None
