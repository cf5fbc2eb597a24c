"""Bundles whose manifest lies, leads outside or lists too little: a refusal that names the file, or the right video.

All run in this process, on copies of one tiny bundle that is exported at the start.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.hostile.bundle_graphs import graphs
from tests.hostile.bundle_lists import engines, lists
from tests.hostile.bundle_manifests import earlier, fields, texts
from tests.hostile.bundle_outside import outside
from tests.hostile.bundle_requests import requests
from tests.hostile.case import Case


def cases() -> Iterator[Case]:
    """Every bundle."""
    for part in (texts, fields, earlier, lists, outside, graphs, engines, requests):
        yield from part()
