"""`python -m sora_spec.builders.trace`: answers a line of JSON on stdin, naming a component, with its recording."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch

from sora_spec.builders.trace.batches import recorded_values
from sora_spec.errors import UserError
from sora_spec.graph import Setting
from sora_spec.language.loading import spec_from_values


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in request["setting"].items()}
    setting = Setting(**values)
    try:
        return recorded_values(spec_from_values(request["spec"]), request["component"], setting)
    except UserError as error:
        return {"error": error.message, "hint": error.hint}
    except Exception as error:  # whatever a module raises is said by the verb that asked
        return {
            "error": f"the trace failed: {type(error).__name__}: {error}",
            "hint": "report the spec and this message",
        }


def main() -> None:
    """Serve until stdin ends. What modules print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps({"torch": torch.__version__} | _answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
