"""ONNX → TensorRT engine, through TensorRT-RTX ahead of time or through TensorRT on the GPU it is for.

The two Python modules share the parser, the network, profiles and the builder; what differs is kept in `Compiler`.
REFIT, REFIT_IDENTICAL and STRIP_PLAN are never set: TensorRT-RTX 1.7 cannot build with them on a machine without a
driver, and with them it may drop a GEMM's bias (TensorRT 11.3 release notes).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sora_spec import output
from sora_spec.compile.bundle.manifest import Profile
from sora_spec.compile.export.targets import RTX_CAPABILITIES, local_compute_capability
from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command

ModuleName = Literal["tensorrt_rtx", "tensorrt"]
_SHORT: dict[ModuleName, str] = {"tensorrt_rtx": "rtx", "tensorrt": "trt"}


@dataclass(frozen=True)
class Compiler:
    """One of the two TensorRT modules, imported."""

    name: ModuleName
    module: Any

    @property
    def version(self) -> str:
        """Version of the module."""
        return str(self.module.__version__)

    @property
    def folder(self) -> str:
        """Name of the engines' folder: `rtx-1.7.1.116`."""
        return f"{_SHORT[self.name]}-{self.version}"

    @property
    def ahead_of_time(self) -> bool:
        """Whether it compiles for GPUs that are not there."""
        return self.name == "tensorrt_rtx"


def choose_compiler(sm: int) -> Compiler:
    """TensorRT where it is installed and the machine's GPU is the target, TensorRT-RTX otherwise.

    Raises UserError, naming the command and the machine to run it on, when neither can build for `sm`.
    """
    if importlib.util.find_spec("tensorrt") is not None and local_compute_capability() == sm:
        return Compiler("tensorrt", importlib.import_module("tensorrt"))
    if sm not in RTX_CAPABILITIES:
        raise UserError(
            f"TensorRT-RTX has no ahead-of-time target sm{sm}",
            "copy the bundle to a machine with that GPU, install sora-spec with its extra `trt` there, and run: "
            f"sora-spec export BUNDLE --trt --target sm{sm}",
        )
    if importlib.util.find_spec("tensorrt_rtx") is None:
        raise UserError(
            f"no TensorRT here that can build for sm{sm}",
            f"{install_command('rtx')} builds without a GPU; or copy the bundle to the machine with the GPU, "
            f"install sora-spec with its extra `trt` there, and run: sora-spec export BUNDLE --trt --target sm{sm}",
        )
    return Compiler("tensorrt_rtx", importlib.import_module("tensorrt_rtx"))


@dataclass(frozen=True)
class EngineRequest:
    """Everything that an engine depends on."""

    onnx: Path
    onnx_sha256: tuple[str, ...]
    """Hashes of the graph and of its weights file."""
    profile: Profile
    sm: int

    def key(self, compiler: Compiler) -> str:
        """Cache key: a build with an equal key gives an equivalent engine. Its bytes differ from build to build."""
        parts = {
            "onnx": self.onnx_sha256,
            "profile": self.profile.model_dump(),
            "flags": FLAGS,
            "builder": [compiler.name, compiler.version],
            "sm": self.sm,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


FLAGS: tuple[str, ...] = ("TF32",)
"""Builder flags that are on. TF32 is TensorRT's default: from Ampere on fp32 matmuls round their inputs to 10 bits."""


def build_engine(request: EngineRequest, compiler: Compiler) -> bytes:
    """Compile one graph; returns the serialized engine.

    Raises UserError with the parser's or builder's own words when the graph cannot be compiled for the target.
    """
    logger, builder, network, parser = _builder(compiler.module)
    if not parser.parse_from_file(str(request.onnx)):
        raise _parse_error(request.onnx, parser)
    config = _make_config(compiler.module, builder, request, compiler)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise UserError(
            f"{compiler.name} {compiler.version} cannot build {request.onnx.name} for sm{request.sm}: {logger.why()}",
            "run again with -v for the builder's whole log; --precision fp32 avoids the need for fused attention",
        )
    return bytes(serialized)


def _make_config(trt: Any, builder: Any, request: EngineRequest, compiler: Compiler) -> Any:
    config = builder.create_builder_config()
    for flag in FLAGS:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if compiler.ahead_of_time:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{request.sm}"), 0)
    profile = builder.create_optimization_profile()
    bounds = request.profile
    for name in bounds.opt:
        profile.set_shape(name, bounds.min[name], bounds.opt[name], bounds.max[name])
    config.add_optimization_profile(profile)
    return config


def _builder(trt: Any) -> tuple[Any, Any, Any, Any]:
    """A logger, a builder, an empty network and the parser that fills it; all must live until the last is used."""
    logger = _make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return logger, builder, network, trt.OnnxParser(network, logger)


def unsupported_nodes(onnx: Path, compiler: Compiler) -> list[str]:
    """Nodes that the parser refuses, as `name (op)`; empty when it takes the whole graph. Needs no GPU."""
    *kept, parser = _builder(compiler.module)  # noqa: RUF059, the parser refers to them
    if parser.supports_model_v2(onnx.read_bytes(), str(onnx)):
        return []
    return _describe_errors(parser) or ["the parser gives no reason"]


def _describe_errors(parser: Any) -> list[str]:
    return [_describe(parser.get_error(index)) for index in range(parser.num_errors)]


def _describe(error: Any) -> str:
    # The parser says "false" of an op that it does not know at all.
    reason = "is not supported" if error.desc() in ("", "false") else error.desc()
    return f"{error.node_name() or 'the graph'} ({error.node_operator() or 'no op'}): {reason}"


def _parse_error(onnx: Path, parser: Any) -> UserError:
    reasons = _describe_errors(parser)
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return UserError(
        f"TensorRT's parser refuses {onnx.name}: {reasons[0] if reasons else 'no reason given'}{more}",
        "sora-spec export BUNDLE --check lists every refused node",
    )


def _make_logger(trt: Any) -> Any:
    """A logger that sends the builder's talk to `-v` and keeps its errors, since the builder raises none."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(msg)
            elif severity != trt.ILogger.VERBOSE:
                output.verbose(f"tensorrt: {msg}")

        def why(self) -> str:
            return _shorten(self.errors) or "no reason given"

    return Logger()


def _shorten(messages: Sequence[str], limit: int = 600) -> str:
    text = "; ".join(dict.fromkeys(message.strip() for message in messages))
    return text if len(text) <= limit else text[:limit] + " …"
