"""A declarative model-graph compiler for video diffusion: one YAML spec to plan, train, export and generate.

import sora_spec

net = sora_spec.build("dit")                              # a torch.nn.Module
sora_spec.plan("dit", gpu="h100")["verdict"]              # "yes", "tight" or "no"; needs no PyTorch
run = sora_spec.train("dit", {"train.data": "photos"})    # a run folder
clips = sora_spec.sample(run, labels=[3])                 # frames as uint8 arrays
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError as UserError

if TYPE_CHECKING:
    from sora_spec.door import Trained as Trained
    from sora_spec.door import build as build
    from sora_spec.door import load as load
    from sora_spec.door import plan as plan
    from sora_spec.door import sample as sample
    from sora_spec.door import train as train
    from sora_spec.door import validate as validate
    from sora_spec.language.diagnostics import Diagnostic as Diagnostic
    from sora_spec.language.schema.spec import Spec as Spec
    from sora_spec.language.spec_errors import SpecErrors as SpecErrors

_PACKAGES = ("plan", "train")
_HOMES = dict.fromkeys(("build", "load", "sample", "validate", "Trained"), "sora_spec.door") | {
    "Diagnostic": "sora_spec.language.diagnostics",
    "SpecErrors": "sora_spec.language.spec_errors",
    "Spec": "sora_spec.language.schema.spec",
}


class _Verb(ModuleType):
    """A package that is a verb, too: `sora_spec.plan` holds the planner, and called it makes a plan."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        from sora_spec import door

        return getattr(door, self.__name__.rsplit(".", 1)[1])(*given, **named)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a package sets it on its parent, over a function of the same name: hence it has to be both.
        if name in _PACKAGES and type(value) is ModuleType:
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Verbs, and `__version__`, when asked for: `importlib.metadata` is slow to import."""
    if name == "__version__":
        from importlib.metadata import version

        return version("sora-spec")
    from importlib import import_module

    if name in _PACKAGES:
        return import_module(f"sora_spec.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PACKAGES})
