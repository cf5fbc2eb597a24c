"""Words of other systems (PyTorch, diffusers, accelerate, DeepSpeed, Lightning) for what is called differently here.

`section.word` is what a word means in that section, `.word` at the left margin; a bare word means the same everywhere.
"""

from __future__ import annotations

_CALLED = {
    "optimizer.lr": "learning_rate lr base_lr max_lr",
    "optimizer.weight_decay": "weight_decay adam_weight_decay wd",
    "optimizer.betas": "betas adam_beta1 adam_beta2 beta1 beta2",
    "optimizer.eps": "eps epsilon adam_epsilon",
    "precision": "dtype mixed_precision fp16 bf16 amp half torch_dtype",
    "depth": "layers num_layers n_layers n_layer num_hidden_layers",
    "depth blocks": "num_blocks n_blocks",
    "width": (
        "hidden_size hidden_dim dim d_model n_embd model_channels inner_dim embedding_dim base_channels ch "
        "embed_dim clip.w"
    ),
    "channels": "vae.embed_dim latent_channels z_channels vae_channels",
    "heads": "n_head n_heads num_heads num_attention_heads",
    "mlp_ratio": "mlp_expansion ff_mult ffn_mult",
    "position": "rope pos_embed positional_embedding positional_embeddings position_embedding",
    "conditioning": "adaln modulation norm_type conditioning_type",
    "weights": "pretrained checkpoint ckpt ckpt_path path from_pretrained pretrained_model_name_or_path model_path",
    "qk_norm": "qk_normalization",
    "learn_sigma": "learned_sigma",
    "guidance": "cfg cfg_scale guidance_scale unconditional_guidance_scale",
    "frames": "num_frames n_frames video_length length sample_n_frames num_video_frames clip.t",
    "time": "patch.t patch.pt patch.temporal patch.patch_size_t patch.temporal_patch_size patch.frames patch_size_t",
    "height": "clip.h",
    "space": "patch.h patch.w patch.p patch.size patch.spatial patch_size patch.spatial_patch_size",
    "fps": "frame_rate framerate video_fps",
    "steps": (
        "max_steps max_train_steps num_train_steps total_steps num_inference_steps num_sampling_steps num_steps "
        "sampling_steps nfe num_train_timesteps timesteps diffusion_steps num_timesteps"
    ),
    "warmup": "warmup_steps lr_warmup_steps num_warmup_steps",
    "schedule": "lr_scheduler lr_schedule lr_scheduler_type noise_schedule beta_schedule",
    "checkpoint_every": (
        "checkpointing_steps save_steps save_every save_interval save_every_n_steps ckpt_every ckpt_interval"
    ),
    "log_every": "logging_steps log_interval log_steps log_every_n_steps logging_interval",
    "keep": "save_total_limit checkpoints_total_limit keep_last_n save_top_k max_checkpoints",
    "sample_every": "validation_steps eval_every eval_steps val_check_interval sample_interval sample_steps",
    "micro_batch": (
        "micro_batch_size per_device_train_batch_size per_device_batch_size per_gpu_batch_size "
        "train_micro_batch_size_per_gpu"
    ),
    "batch": "batch_size train_batch_size global_batch_size max_batch",
    "accumulation": "gradient_accumulation_steps grad_accum accumulate_grad_batches gradient_accumulation",
    "clip_grad": "gradient_clipping max_grad_norm grad_clip gradient_clip_val max_norm",
    "clip_grad_from": "start_clip_iter",
    "tf32": "allow_tf32",
    "recompute": "gradient_checkpointing activation_checkpointing grad_checkpoint grad_checkpointing use_checkpoint",
    "data": "dataset data_path data_dir train_data_dir dataset_name instance_data_dir",
    "ema": "ema_decay ema_rate use_ema ema_decay_rate",
    "seed": "global_seed random_seed seed_everything",
    "workers": "num_workers dataloader_num_workers",
    "flip": "random_flip horizontal_flip",
    "crop": "center_crop random_crop",
    "scale": "scaling_factor scaling scale_factor",
    "multipliers": "ch_mult channel_mult dim_mult",
    "blocks": "layers_per_block num_res_blocks",
    "groups": "norm_num_groups",
    "compression": "downsample downsampling spatial_compression temporal_compression compression_ratio",
    "tiling": "enable_tiling use_tiling tile_size tile_sample_min_size",
    "training.perceptual": "lpips perceptual_weight perceptual_loss lpips_weight",
    "training.kl_weight": "kl_weight",
    "kind": (
        "vae.name vae.type backbone.name backbone.type sampler.name sampler.type temporal.name temporal.type "
        "temporal.mode temporal.attention condition.name condition.type objective.name objective.type "
        "optimizer.name optimizer.type sampler.scheduler sampler.method sampler.solver sampler.algorithm "
        "sampler.sampler"
    ),
    "eta": "ddim_eta",
    "spacing": "timestep_spacing timestep_respacing",
    "atol": "absolute_tolerance",
    "rtol": "relative_tolerance",
    "prediction": "prediction_type parameterization model_mean_type",
    "variance": "var_type variance_type model_var_type",
    "path": "objective.path_type path_type",
    "weighting": "loss_weight loss_weighting weighting_scheme",
    "zero_terminal_snr": "rescale_betas_zero_snr zero_snr enforce_zero_terminal_snr",
    "beta_start": "linear_start",
    "beta_end": "linear_end",
    "classes": "num_classes n_classes num_labels",
    "dropout": (
        "class_dropout_prob cfg_dropout cfg_dropout_prob uncond_prob p_uncond unconditional_prob label_dropout "
        "dropout_prob"
    ),
    "encoder": "text_encoder tokenizer encoder_name condition.from_pretrained text_encoder_path",
    "tokens": "model_max_length max_length max_tokens max_sequence_length text_len tokens_max",
    "window": "window_size",
    "every": "every_n insert_every",
    "shard": "fsdp fsdp_size dp_shard data_parallel_shard_degree",
    "replicate": "dp ddp data_parallel data_parallel_size hsdp dp_replicate data_parallel_replicate_degree",
    "sequence": (
        "context_parallel cp sp ulysses ring_attention sequence_parallel sequence_parallel_size context_parallel_size"
    ),
    "reshard": "reshard_after_forward",
    "offload": "cpu_offload offload_optimizer offload_param optimizer_offload",
    "count": (
        "gpus num_gpus n_gpus ngpus gpu_count hardware.devices num_devices num_processes nproc_per_node "
        "hardware.world_size"
    ),
    "gpu": "hardware.name hardware.type hardware.device hardware.device_name hardware.accelerator gpu_type gpu_name",
    "backends": "backend export.format tensorrt trt onnx engine",
    "backbone": ".model .network .transformer .unet .dit .denoiser",
    "objective": ".diffusion .loss .noise_scheduler .training_objective",
    "sampler": ".scheduler .inference .sampling .generate .eval",
    "condition": ".text_encoder .conditioning .cond .conditions",
    "vae": ".autoencoder .codec .first_stage .vae_config",
    "clip": ".video .image .videos",
    "train": ".training .trainer .trainer_config .training_args",
    "hardware": ".device .devices .gpus .gpu .accelerator",
    "parallel": ".parallelism .mesh .distributed .fsdp .deepspeed .accelerate .zero",
    "name": ".title .model_name .experiment .run_name",
}
KEYS: dict[str, tuple[str, ...]] = {
    word: tuple(meant.split()) for meant, words in _CALLED.items() for word in words.split()
}
"""Fields by the words that stand for them; where there are several, the first that the section has."""

_COMPILED = "Training runs PyTorch's modules as they are; `sora-spec export --trt` compiles for a GPU."
_COUNTED = "Training counts optimiser steps: `steps`, which is clips × epochs / batch."
_KERNEL = "PyTorch picks the attention kernel; `plan --attention` says what another one needs."
_SPLIT = "Ranks share weights by `parallel.shard` and a clip's tokens by `parallel.sequence`."
_ZERO = "ZeRO-3 is `parallel.shard`, ZeRO-2 is `parallel.reshard: false` with it."
_SIZED = "A clip has `height` and `width`."
_LASTS = "A clip has `frames` at `fps`: seconds × fps of them."
_TAKEN = "Frames are taken at `clip.fps`: a lower one leaves out frames of the source."
_COUNT = "`hardware.count` counts the devices; ranks are `parallel.shard` × `sequence` × `replicate`."
_TABLE = "The table of devices knows the memory: name one by `gpu`, or your own by `plan --hardware FILE`."
_MLP = "The MLP is `mlp_ratio` times as wide as `width`."
_HEAD = "A head has `width` / `heads` channels."
_COLOURS = "Pictures have 3 channels, latents `vae.channels`: nothing else is to be said."
_DEVICE = "The device is an option: `sora-spec train --device cuda:0`."
_SEED = "The seed of samples is an option: `sora-spec generate --seed N`."
_PROMPT = "A prompt is an option: `sora-spec generate --prompt TEXT`."
_RESUMED = "Going on is an option: `sora-spec train RUN --resume`."
_LEVELS = "A level has `width` × its one of `multipliers` channels: 128, 256, 512 are width 128, multipliers [1, 2, 4]."
_TEXT_WIDTH = "The width of a text encoder's features is `condition.width`, of `kind: text`."
_VAE_PASS = "A VAE's step is one pass: `vae.training.batch` counts its clips over all ranks."
_NETWORK = "Blocks have no dropout; `condition.dropout` is how often the label or prompt is left out."

ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(("compile", "torch_compile"), _COMPILED),
    **dict.fromkeys(("epochs", "num_epochs", "max_epochs", "num_train_epochs"), _COUNTED),
    **dict.fromkeys(("flash_attn", "flash_attention", "enable_flash_attn", "xformers"), _KERNEL),
    **dict.fromkeys(("tensor_parallel", "tp", "pp", "pipeline_parallel", "pipeline"), _SPLIT),
    **dict.fromkeys(("zero_stage", "zero", "zero2", "zero3", "zero_optimization", "deepspeed", "stage"), _ZERO),
    **dict.fromkeys(("resolution", "image_size", "sample_size", "size", "aspect_ratio"), _SIZED),
    **dict.fromkeys(("duration", "seconds"), _LASTS),
    **dict.fromkeys(("frame_interval", "frame_stride", "sample_fps", "clip.stride"), _TAKEN),
    **dict.fromkeys(("world_size", "nodes", "num_nodes", "nnodes"), _COUNT),
    **dict.fromkeys(("hardware.memory", "hardware.vram"), _TABLE),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "mlp_dim"), _MLP),
    **dict.fromkeys(("head_dim", "attention_head_dim"), _HEAD),
    **dict.fromkeys(("in_channels", "out_channels"), _COLOURS),
    **dict.fromkeys(("device", "devices", "accelerator"), _DEVICE),
    **dict.fromkeys(("sampler.seed",), _SEED),
    **dict.fromkeys(("prompt",), _PROMPT),
    **dict.fromkeys(("resume", "resume_from_checkpoint"), _RESUMED),
    **dict.fromkeys(("block_out_channels",), _LEVELS),
    **dict.fromkeys(("backbone.dropout", "attention_dropout"), _NETWORK),
    **{
        f"{section}.{word}": _VAE_PASS
        for section in ("vae", "training")
        for word in (*_CALLED["micro_batch"].split(), *_CALLED["accumulation"].split(), "micro_batch", "accumulation")
    },
    "sharding_strategy": "FULL_SHARD is `shard`, SHARD_GRAD_OP `reshard: false` with it, HYBRID_SHARD `replicate` too.",
    **dict.fromkeys(("caption_channels", "context_dim", "cross_attention_dim", "text_dim"), _TEXT_WIDTH),
    "optimizer.lr_scheduler": "`train.schedule` and `train.warmup` say how the learning rate goes on.",
    "guidance_rescale": "Guidance is not rescaled: leave it out.",
}
"""Words for what is no field, because it is decided elsewhere, and what to do instead."""

CHOICES: dict[str, tuple[str, ...]] = {
    "v": ("velocity",),
    "v_prediction": ("velocity",),
    "flow": ("velocity",),
    "eps": ("noise",),
    "epsilon": ("noise",),
    **dict.fromkeys(("float32", "32", "full", "single"), ("fp32",)),
    **dict.fromkeys(("float16", "half", "16", "16_mixed"), ("fp16",)),
    **dict.fromkeys(("bfloat16", "bf16_mixed"), ("bf16",)),
    "scaled_linear": ("linear",),
    "squaredcos_cap_v2": ("cosine",),
    "learned": ("learned_range",),
    "linspace": ("even",),
    "leading": ("stride",),
    "middle": ("center",),
    **dict.fromkeys(("drop", "discard", "ignore"), ("skip",)),
    **dict.fromkeys(("repeat", "cycle"), ("loop",)),
    **dict.fromkeys(("true", "keep", "include", "loop"), ("repeat",)),
    "false": ("skip",),
}
"""Choices that other systems call so."""

_KINDS_CALLED = {
    "joint": "full full_attention 3d 3d_full full_3d",
    "interpolant": "flow_match flow_matching rectified_flow sit rf rflow flow stochastic_interpolant transport",
    "ddpm": "diffusion gaussian gaussian_diffusion iddpm",
    "euler": "flow_match_euler flow_match_euler_discrete",
    "dopri5": "rk45 dopri ode",
    "euler_maruyama": "sde em",
    "transformer": (
        "dit mmdit uvit vit transformer2d dittransformer2dmodel lattetransformer3dmodel dit_xl/2 dit_xl_2 sit_xl/2 "
        "sit_xl_2 stdit3"
    ),
    "image_kl": "sd kl autoencoder_kl autoencoderkl sdxl sd_vae_ft_ema sd_vae_ft_mse",
    "causal3d": "magvit2 wan causal_vae causalvae autoencoderklwan",
    "class": "label class_label labels class_cond class_conditional classes",
    "text": "t5 clip caption captions prompt t5xxl umt5",
    "alternating": "latte interleaved",
    "factorized": "stdit 2+1d 2d+1d divided st_dit",
    "adaln_zero": "adaln ada_norm_zero",
    "cross_attention": "adaln_single cross cross_attn",
    "identity": "pixel pixels rgb",
    "windowed": "sliding_window swin",
    "adaln_single": "ada_norm_single",
    "sincos": "sinusoidal sine sin_cos",
    "rope": "rotary",
    "none": "nope null uncond unconditional no no_position",
    "blocks": "selective all every full_blocks",
    "spatial": "spatial_tiling",
}
KINDS: dict[str, str] = {word: kind for kind, words in _KINDS_CALLED.items() for word in words.split()}
"""Kinds that other systems call so."""

NO_GUESS = frozenset(["euler_a", "euler_ancestral", "euler_ancestral_discrete", "ddim_inverse", "dopri8"])
"""Words that look like a choice and are another thing."""
