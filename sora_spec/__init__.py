"""A declarative model-graph compiler for video diffusion: one YAML spec to plan, train, export and generate."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """`sora_spec.__version__`, read when asked for: `importlib.metadata` is slow to import."""
    if name == "__version__":
        from importlib.metadata import version

        return version("sora-spec")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
