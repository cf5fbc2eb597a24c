"""A run folder, a bundle or a spec with weights → the parts of generation, on the backend that was asked for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from sora_spec.builders.text.tokenizer import PromptTokenizer
from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.bundle.contract import contract_of
from sora_spec.compile.bundle.manifest import Precision
from sora_spec.compile.run.decoding import decoder_of
from sora_spec.compile.run.executors.spec_source import SpecSource, is_spec
from sora_spec.compile.run.executors.stage import Backend, Stage
from sora_spec.compile.run.pipeline import Pipeline, with_role
from sora_spec.compile.run.prompts import Prompts
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.abilities import Verb, refuse
from sora_spec.language.loading import load_spec
from sora_spec.language.packaged import packaged_names
from sora_spec.language.schema.condition import TextCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.recipe.parts import graph_parts

Asked = Literal["auto", "torch", "onnx", "tensorrt"]


Source: TypeAlias = RunFolder | Bundle | SpecSource
_MAKE = "`sora-spec train SPEC` makes a run, `sora-spec export RUN` a bundle"


def open_source(path: Path, verb: Verb, overrides: Sequence[str] = (), random: bool = False) -> Source:
    """The run folder, bundle or spec at `path`, a packaged spec by its name, which `verb` can do something with.

    `overrides` are for a spec, and `random`: draw the weights that it names no file for. Raises UserError when `path`
    is none of these, and where the verb is beyond what the program can do.
    """
    source = _find_source(path, overrides, random)
    refuse(source.load_spec(), verb)
    if isinstance(source, SpecSource):
        source.check_weights()
    return source


def _find_source(path: Path, overrides: Sequence[str], random: bool) -> Source:
    if not path.is_dir() and is_spec(path):
        return SpecSource(path, tuple(overrides), random)
    if random:
        raise UserError(f"{path} is no spec: --random-weights goes with one", "sora-spec export SPEC --random-weights")
    if not path.exists():
        close = difflib.get_close_matches(str(path), packaged_names(), n=1)
        meant = f"did you mean the spec {close[0]}? " if close else ""
        raise UserError(f"{path} does not exist", f"{meant}give a run folder, a bundle or a spec with weights; {_MAKE}")
    if path.is_dir() and not (path / "manifest.json").exists() and any(path.glob("*.onnx")):
        raise UserError(f"{path} is an incomplete bundle: it has no manifest.json", "copy the bundle again")
    if RunFolder.is_run(path):
        return RunFolder.open(path)
    if (path / "manifest.json").is_file():
        return Bundle.open(path)
    raise UserError(
        f"{path} is neither a run folder (spec.yaml) nor a bundle (manifest.json)",
        f"give a run folder or a bundle; {_MAKE}",
    )


def source_spec(source: Source, overrides: Sequence[str]) -> Spec:
    """The spec of a source with `key=value` overrides."""
    return load_spec(str(source.spec_path), overrides) if isinstance(source, RunFolder) else source.load_spec(overrides)


def choose_backend(source: Source, asked: Asked) -> Backend:
    """What `auto` means for `source`, and whether it can be had at all.

    A run and a spec are always eager; a bundle takes engines where they run and ONNX Runtime elsewhere. Raises
    UserError otherwise.
    """
    if not isinstance(source, Bundle):
        if asked in ("onnx", "tensorrt"):
            kind = "a run folder" if isinstance(source, RunFolder) else "a spec"
            raise UserError(
                f"{source.path} is {kind}: --backend {asked} runs bundles",
                f"make one: sora-spec export {source.path}, then sora-spec generate BUNDLE",
            )
        return "torch"
    if asked == "torch":
        raise UserError(
            f"{source.path} is a bundle: --backend torch runs run folders", "sora-spec generate RUN, or --backend onnx"
        )
    if asked == "auto":
        from sora_spec.compile.run.executors.tensorrt_stage import usable_engine

        return "tensorrt" if all(usable_engine(source, part.name) for part in source.manifest.parts) else "onnx"
    return asked


def choose_precision(source: Source, asked: Precision | None) -> Precision:
    """What the networks compute in: as asked, else a bundle in its own precision, and all else in fp32.

    Raises UserError for a bundle of another precision, and for bf16 on a GPU that has no bf16 arithmetic.
    """
    if isinstance(source, Bundle):
        own = source.manifest.precision
        if asked not in (None, own):
            raise UserError(
                f"{source.path} was exported in {own}: its graphs compute in nothing else than that",
                f"sora-spec export RUN --precision {asked}, or generate from the run folder",
            )
        return own
    if asked == "bf16":
        import torch

        if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UserError(f"{torch.cuda.get_device_name()} has no bf16 arithmetic", "--precision fp16, or fp32")
    return asked or "fp32"


def open_pipeline(
    source: Source,
    spec: Spec,
    backend: Backend,
    ema: bool = True,
    offload: bool = False,
    precision: Precision | None = None,
) -> Pipeline:
    """Load all parts, or with `offload` prepare to load each when it runs.

    `spec` is the source's, perhaps with another sampler or clip length; of a run also with other tiles or streaming.
    `precision`: see `choose_precision`.
    """
    computed = choose_precision(source, precision)
    trained = source_spec(source, ())  # what the graphs take follows from this one
    if isinstance(source, Bundle):
        stages = _bundle_stages(source, trained, backend, offload)
    else:
        stages = _eager_stages(source, trained.model_copy(update={"vae": spec.vae}), ema, offload, computed)
    text = isinstance(spec.condition, TextCondition)
    prompts = _open_prompts(source, trained, with_role(stages, "denoise"), offload) if text else None
    return Pipeline(spec, stages, decoder_of(spec, with_role(stages, "decode")), computed, prompts=prompts)


def _open_prompts(source: Source, spec: Spec, denoiser: Stage, offload: bool) -> Prompts:
    """The frozen text encoder of the spec, which a run and a spec name and do not hold."""
    from sora_spec.builders.text.encoder import load_encoder, text_digest
    from sora_spec.builders.text.folders import find_encoder
    from sora_spec.builders.weights.digest import warn_of_other_encoder
    from sora_spec.compile.export.graph_modules import DenoiserGraph
    from sora_spec.compile.run.executors.torch_stage import TorchStage

    condition = spec.condition
    assert isinstance(condition, TextCondition)
    if isinstance(source, Bundle):
        raise UserError(f"{source.path} holds no text encoder", "generate from the run folder")
    tokenizer = PromptTokenizer.open(find_encoder(condition.encoder).tokenizer, condition.tokens)
    encoder = load_encoder(condition)
    if isinstance(source, RunFolder):
        warn_of_other_encoder(source, text_digest(encoder, tokenizer))
    assert isinstance(denoiser, TorchStage)
    assert isinstance(denoiser.module, DenoiserGraph)
    null = denoiser.module.denoiser.null_context
    table = None if null is None else null.float().cpu().numpy()
    return Prompts(
        condition, tokenizer, TorchStage("text_encoder", encoder, contract_of(spec, "text_encoder"), offload), table
    )


def _bundle_stages(bundle: Bundle, spec: Spec, backend: Backend, offload: bool) -> list[Stage]:
    if backend == "tensorrt":
        from sora_spec.compile.run.executors.tensorrt_stage import load_engines

        return load_engines(bundle, spec, offload)
    from sora_spec.compile.run.executors.onnx_stage import OnnxStage

    return [
        OnnxStage(part.name, bundle.path / part.file, contract_of(spec, part.name), offload=offload)
        for part in bundle.manifest.parts
    ]


def _eager_stages(
    source: RunFolder | SpecSource, spec: Spec, ema: bool, offload: bool, precision: Precision
) -> list[Stage]:
    from sora_spec.builders.tf32 import set_tf32
    from sora_spec.builders.vae.from_spec import set_pieces
    from sora_spec.compile.export.graph_loading import load_networks
    from sora_spec.compile.export.graph_modules import cast_weights
    from sora_spec.compile.run.executors.torch_stage import TorchStage

    set_tf32(spec.train.tf32)
    networks = load_networks(source, ema)
    set_pieces(networks.vae, spec.vae)
    stages: list[Stage] = []
    for part in graph_parts(spec):
        module = cast_weights(networks.graph(part.name), precision)
        stages.append(TorchStage(part.name, module, contract_of(spec, part.name), offload))
    return stages
