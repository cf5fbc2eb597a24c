"""Checkpoints as they come, damaged, wrapped, mislabelled or hostile: the right tensors, or a refusal that says why.

All run in this process. A hostile pickle would leave a file behind; none may.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.hostile.case import Case
from tests.hostile.weight_archives import archives
from tests.hostile.weight_contents import names, nests, values
from tests.hostile.weight_folders import folders
from tests.hostile.weight_pickles import pickles
from tests.hostile.weight_safetensors import safetensors
from tests.hostile.weight_vaes import vaes


def cases() -> Iterator[Case]:
    """Every file."""
    for part in (archives, pickles, nests, names, values, safetensors, folders, vaes):
        yield from part()
