"""E3xx and Wxxx: sections that do not fit together."""

from __future__ import annotations

from sora_spec.language.code_texts.code import Code

_NET = "backbone: {kind: transformer, depth: 2, width: 64, heads: 4, learn_sigma: false"
_DDPM = "objective: {kind: ddpm, variance: fixed_small}\nsampler: {kind: ddpm, steps: 50}"
_VAE = "vae: {kind: image_kl"

CODES = (
    Code(
        "E301",
        "the frames do not fit the VAE",
        "A causal VAE keeps the first frame apart, so that it can also encode images: it takes 1 + k·time frames and "
        "makes 1 + k latent frames of them. Every other VAE takes a multiple of its time compression.",
        "clip: {frames: 80, height: 32, width: 32}\nvae: {kind: causal3d}",
        "clip: {frames: 81, height: 32, width: 32}\nvae: {kind: causal3d}",
    ),
    Code(
        "E302",
        "height or width do not fit VAE and patch",
        "The VAE divides rows and columns by its compression, the patch divides what is left. Both must come out "
        "even, so height and width are multiples of compression.space × patch.space.",
        "clip: {frames: 8, height: 30, width: 32}",
        "clip: {frames: 8, height: 32, width: 32}",
    ),
    Code(
        "E303",
        "the latent frames do not fit the patch",
        "`patch.time` latent frames become one token, so it divides the number of latent frames. A causal VAE makes "
        "an odd number of them from the usual clip lengths, which leaves `patch.time: 1`.",
        "patch: {time: 3, space: 4}",
        "patch: {time: 2, space: 4}",
    ),
    Code(
        "E304",
        "the heads do not divide the width",
        "Attention splits the channels of a token evenly over its heads.",
        "backbone: {kind: transformer, depth: 2, width: 64, heads: 6, learn_sigma: false}",
        _NET + "}",
    ),
    Code(
        "E305",
        "rotary positions do not fit the heads",
        "Rotary positions turn pairs of channels. A head's channels are shared out to time, height and width: each "
        "share is even, and together they are the head width (width / heads).",
        _NET + ", position: {kind: rope, axes: [4, 6, 8]}}",
        _NET + ", position: {kind: rope, axes: [4, 6, 6]}}",
    ),
    Code(
        "E306",
        "sine-cosine positions do not fit the width",
        "The table has a sine and a cosine part for rows and for columns: four equal parts of the width.",
        "backbone: {kind: transformer, depth: 2, width: 66, heads: 6, learn_sigma: false}",
        "backbone: {kind: transformer, depth: 2, width: 72, heads: 6, learn_sigma: false}",
    ),
    Code(
        "E307",
        "the window does not divide the token grid",
        "Windowed attention cuts the token grid (frames × rows × columns) into equal windows. `sora-spec show` prints "
        "the grid.",
        "temporal: {kind: windowed, window: [3, 4, 4]}",
        "temporal: {kind: windowed, window: [4, 4, 4]}",
    ),
    Code(
        "E308",
        "sequence-parallel ranks do not divide tokens or heads",
        "The ranks of a sequence-parallel group share the tokens of one clip, and inside attention its heads. Both are "
        "divisible by the number of ranks.",
        "parallel: {sequence: 3}\ntrain: {batch: 3}",
        "parallel: {sequence: 2}\ntrain: {batch: 4}",
    ),
    Code(
        "E309",
        "the compression does not fit the VAE",
        "Each level but the last halves rows and columns, so n levels compress space by 2^(n−1). The image VAE works "
        "frame by frame (time 1), the identity VAE compresses nothing, and a causal VAE halves time in the levels "
        "that also halve space, so time is at most space.",
        "clip: {frames: 8, height: 64, width: 64}\n" + _VAE + ", multipliers: [1, 2, 4]}",
        "clip: {frames: 8, height: 64, width: 64}\n" + _VAE + ", multipliers: [1, 2, 4, 4]}",
    ),
    Code(
        "E310",
        "the groups do not divide the channels",
        "Every GroupNorm of the image VAE has `groups` groups, so they divide the channels of every level: "
        "`width` times each multiplier.",
        _VAE + ", width: 48}",
        _VAE + ", width: 48, groups: 16}",
    ),
    Code(
        "E311",
        "training crops of the VAE do not fit it",
        "Crops obey the VAE's own rules: their frames are 1 + k·time (causal) or a multiple of time, their side is a "
        "multiple of the space compression.",
        _VAE + ", training: {crop: 100}}",
        _VAE + ", training: {crop: 96}}",
    ),
    Code(
        "E312",
        "the condition does not reach the blocks",
        "adaLN takes one vector per clip: a class, or a pooled text vector. Cross-attention takes a text's tokens. "
        "A text condition without `pooled` brings tokens, everything else brings one vector or nothing.",
        "condition: {kind: text, encoder: my-encoder}",
        "condition: {kind: text, encoder: my-encoder, pooled: true}",
    ),
    Code(
        "E313",
        "sampler and objective are of different families",
        "`ddpm` and `ddim` walk the discrete steps of a `ddpm` objective. `euler`, `heun`, `dopri5` and "
        "`euler_maruyama` integrate the continuous path of an `interpolant` objective.",
        "sampler: {kind: ddim, steps: 20}",
        "sampler: {kind: heun, steps: 20}",
    ),
    Code(
        "E314",
        "a learned variance without outputs",
        "`variance: learned_range` (DiT) reads a second half of output channels, which the network has only with "
        "`learn_sigma: true`.",
        _NET + "}\nobjective: {kind: ddpm}\nsampler: {kind: ddpm, steps: 50}",
        _NET + "}\n" + _DDPM,
    ),
    Code(
        "E315",
        "zero terminal SNR without velocity prediction",
        "With zero terminal SNR the last step is pure noise. A network that predicts noise could hand on its input "
        "there and say nothing about the data, so the published recipe (arXiv 2305.08891) predicts velocity.",
        "objective: {kind: ddpm, variance: fixed_small, zero_terminal_snr: true}\nsampler: {kind: ddpm, steps: 50}",
        "objective: {kind: ddpm, variance: fixed_small, zero_terminal_snr: true, prediction: velocity}\n"
        "sampler: {kind: ddpm, steps: 50}",
    ),
    Code(
        "E316",
        "an infinite diffusion coefficient",
        "The SBDM diffusion coefficient is (1−t)/t on the linear path, and infinite at t = 0 on the GVP path "
        "too. Sampling a velocity starts exactly there (SiT sets no margin for it), and the first step gives NaN. "
        "Score and noise prediction start a little later and may use it.",
        "sampler: {kind: euler_maruyama, diffusion: sbdm}",
        "sampler: {kind: euler_maruyama, diffusion: sigma}",
    ),
    Code(
        "E317",
        "a loss weighting without effect",
        "`weighting` scales the loss of score and noise prediction (SiT §2.1). The velocity loss has no weight.",
        "objective: {kind: interpolant, weighting: likelihood}",
        "objective: {kind: interpolant, weighting: likelihood, prediction: score}",
    ),
    Code(
        "E318",
        "more sampling steps than training steps",
        "`ddpm` and `ddim` visit a subset of the training steps, so they cannot take more of them. With "
        "`spacing: stride` they visit every n-th, which gives only some numbers of steps.",
        "objective: {kind: ddpm, variance: fixed_small, steps: 40}\nsampler: {kind: ddim, steps: 50}",
        "objective: {kind: ddpm, variance: fixed_small, steps: 50}\nsampler: {kind: ddim, steps: 50}",
    ),
    Code(
        "E319",
        "noise that does not grow",
        "The first beta (or sigma) is the smallest, the last one the largest, and no beta reaches 1. Betas that are "
        "left out grow as the number of steps shrinks: 1e-4 and 0.02 times 1000/steps.",
        "objective: {kind: interpolant, path: vp, sigma_min: 20.0, sigma_max: 0.1}",
        "objective: {kind: interpolant, path: vp, sigma_min: 0.1, sigma_max: 20.0}",
    ),
    Code(
        "E320",
        "guidance without a trained null condition",
        "Classifier-free guidance moves away from the unconditional prediction. The network learns that one only from "
        "the training clips whose condition was dropped. A guidance of 1 is off.",
        "condition: {kind: class, classes: 10, dropout: 0.0}\nsampler: {kind: heun, guidance: 4.0}",
        "condition: {kind: class, classes: 10, dropout: 0.1}\nsampler: {kind: heun, guidance: 4.0}",
    ),
    Code(
        "E321",
        "more guided channels than channels",
        "DiT and SiT guide the first three of four latent channels; left out, all are guided.",
        "condition: {kind: class, classes: 10}\nsampler: {kind: heun, guidance: 4.0, guidance_channels: 4}",
        "condition: {kind: class, classes: 10}\nsampler: {kind: heun, guidance: 4.0, guidance_channels: 3}",
    ),
    Code(
        "E322",
        "a batch that does not add up",
        "`batch` is the number of clips of one optimiser step over all ranks: micro_batch × ranks × accumulation, with "
        "ranks = shard × replicate, since the ranks of a sequence group share their clips. Without `micro_batch` it is "
        "worked out, and must come out whole.",
        "train: {batch: 10, micro_batch: 4, accumulation: 2}",
        "train: {batch: 8, micro_batch: 4, accumulation: 2}",
    ),
    Code(
        "E323",
        "a warm-up longer than the training",
        "The learning rate would never reach its value.",
        "train: {warmup: 2000, steps: 1000}",
        "train: {warmup: 100, steps: 1000}",
    ),
    Code(
        "E324",
        "an export range that does not fit",
        "Ranges run from small to large, every number of frames fits VAE and patch, and the clip of the spec lies "
        "inside the exported frames.",
        "export: {frames: [16, 32]}",
        "export: {frames: [8, 32]}",
    ),
    Code(
        "E326",
        "a text width that is not the encoder's",
        "The width of the features is known of released encoders (T5-v1.1-XXL and UMT5-XXL 4096, T5-v1.1-XL 2048, "
        "CLIP ViT-L/14 768, CLIP ViT-B/32 512, all-MiniLM-L6-v2 384, …), and of a folder from its `config.json`.",
        "condition: {kind: text, encoder: google/t5-v1_1-xxl, width: 512, pooled: true}",
        "condition: {kind: text, encoder: google/t5-v1_1-xxl, width: 4096, pooled: true}",
    ),
    Code(
        "E327",
        "a size beyond anything that can be held",
        "Each number lies in its range, but together they make more than 100 million tokens in a clip, more than 10¹² "
        "parameters, more than 65,536 channels, or an MLP without a channel. Nothing could be allocated for it.",
        "clip: {frames: 100000, height: 4096, width: 4096}",
        "clip: {frames: 8, height: 32, width: 32}",
    ),
    Code(
        "E328",
        "a last step of length zero",
        "The SDE sampler ends with one step without noise, of length `last_step_size`, from t = 1 − size. With 0 it "
        "would evaluate the score at t = 1, where the noise level is 0 and the score divides by it.",
        "sampler: {kind: euler_maruyama, last_step_size: 0.0}",
        "sampler: {kind: euler_maruyama, last_step_size: 0.0, last_step: none}",
    ),
    Code(
        "E329",
        "tiles that do not fit the VAE",
        "Tiles are cut in pixels and in latents alike, so their side and their overlap are multiples of the space "
        "compression; and each tile must reach beyond the one before, so the overlap is below the side. An overlap of "
        "a quarter of the side hides the seams; what a tile's border does not see is faded out over it.",
        _VAE + ", tiling: {kind: spatial, tile: 256, overlap: 60}}",
        _VAE + ", tiling: {kind: spatial, tile: 256, overlap: 64}}",
    ),
    Code(
        "E330",
        "a GPU that is no device of the table",
        "`hardware.gpu` names the device that plans are made for: an entry of `sora_spec/hardware.yaml`, however it is "
        "written (`rtx4090`, `RTX 4090`, `4090`, `A100-SXM4-80GB`). A model with several sizes of memory is not one "
        "device, and a GPU without figures cannot be planned on. Only plans need it: such a spec can be trained, and "
        "planned with `--gpu NAME`. Devices of your own come from a file: `validate --hardware FILE`, "
        "`plan --hardware FILE`.",
        "hardware: {gpu: a100}",
        "hardware: {gpu: a100-80gb}",
    ),
    Code(
        "E331",
        "a time that the objective does not have",
        "Under an interpolant a network is told a time in [0, 1], or with `backbone.time_input: noise_level` the noise "
        "level 1000·(1 − t), as Wan is. Under DDPM it is told the number of the step.",
        "backbone: {kind: transformer, depth: 2, width: 48, heads: 2, time_input: noise_level}\n"
        "objective: {kind: ddpm, variance: learned_range}\nsampler: {kind: ddpm, steps: 10}",
        "backbone: {kind: transformer, depth: 2, width: 48, heads: 2, learn_sigma: false, time_input: noise_level}\n"
        "objective: {kind: interpolant}\nsampler: {kind: euler, steps: 10}",
    ),
    Code(
        "W301",
        "temporal layers without time",
        "The network attends over time, but a clip has one frame. It can be built and trained; the temporal layers see "
        "one token each.",
        "clip: {frames: 1, height: 32, width: 32}\ntemporal: {kind: alternating}",
        "clip: {frames: 1, height: 32, width: 32}\ntemporal: {kind: none}",
    ),
    Code(
        "W302",
        "a switch that changes nothing",
        "`parallel.reshard` says how long gathered weights are kept: they are gathered on several ranks, in bf16, and "
        "under `parallel.offload`. `train.ema_device` says where the average is kept, which a decay of 0 leaves out. "
        "`train.clip_grad_from` says when clipping begins, `condition.masked` and `no_prompt` speak of a prompt's "
        "tokens, `temporal.frame_positions` of the sine-cosine table over frames, `backbone.qk_norm_over` of the norms "
        "of queries and keys, and `train.short` and `train.stills` of clips of several frames.",
        "train: {ema: 0.0, ema_device: cpu}",
        "train: {ema: 0.9999, ema_device: cpu}",
    ),
)
