"""Encoding and decoding in pieces, in memory that does not grow with the clip.

The pieces give the same values as the whole clip, because nothing in the causal codec looks forward in time and its
norms see one position each.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from sora_spec.builders.vae.causal3d import Causal3dCodec
from sora_spec.builders.vae.causal_layers import Stream
from sora_spec.builders.vae.interface import split_moments


def decode_stream(codec: Causal3dCodec, latents: Tensor) -> Iterator[Tensor]:
    """Pixels of normalised latents (B, C, F, H, W), one latent frame at a time: first 1 frame, then `time` each.

    Concatenated over dim 2 the pieces equal `codec.decode(latents)`.
    """
    z = codec.denormalise(latents)
    stream = Stream()
    for frame in range(z.shape[2]):
        yield codec.decoder(z[:, :, frame : frame + 1], stream)
        stream = Stream(stream.tails)


def encode_stream(codec: Causal3dCodec, video: Tensor) -> Iterator[Tensor]:
    """Normalised posterior means of a video (B, 3, T, Y, X), one latent frame at a time.

    Concatenated over dim 2 the pieces equal `codec.encode(video)`.
    """
    codec.check_size(video)
    codec.check_frames(video)
    stream = Stream()
    for end in range(1, video.shape[2] + 1, codec.time):
        piece = video[:, :, max(end - codec.time, 0) : end]
        mean, _ = split_moments(codec.encoder(piece, stream))
        yield codec.normalise(mean)
        stream = Stream(stream.tails)
