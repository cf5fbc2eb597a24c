"""Which package may import which, seen in the source and in running processes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "textual", "numpy", "av", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "PIL", "einops"}
FOLDERS = {"sora_spec": "core", "builders": "builders", "train": "train", "compile": "compile", "tui": "tui"}
FORBIDDEN = {
    "core": {"builders", "train", "compile", "tui"},
    "builders": {"train", "compile", "tui"},
    "train": {"compile", "tui"},
    "compile": {"train", "tui"},
    "tui": {"builders", "train", "compile"},
}


def imports(path: Path, inside_functions: bool) -> set[str]:
    """Modules that a file imports, without those that only the type checker sees."""
    found = set[str]()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.update({child.module, *(f"{child.module}.{alias.name}" for alias in child.names)})
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", sources("sora_spec"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_nothing_heavy_at_its_head(path: Path) -> None:
    assert {name.split(".")[0] for name in imports(path, inside_functions=False)} & HEAVY == set()


@pytest.mark.parametrize(("folder", "package"), FOLDERS.items())
def test_arrows_between_packages(folder: str, package: str) -> None:
    paths = sources(folder)
    assert paths
    for path in paths:
        # A verb, of the command line or of Python, may call any package, but only once it runs.
        names = imports(path, inside_functions="cli" not in path.parts and path.name != "door.py")
        wrong = {
            name for name in names for target in FORBIDDEN[package] if f"{name}.".startswith(f"sora_spec.{target}.")
        }
        assert wrong == set(), path


PLAN = ({"devices", "memory", "time"}, {"axes"}, {"search"}, {"show"})
"""Folders of the planner, from the bottom up."""


@pytest.mark.parametrize(("below", "folders"), enumerate(PLAN[:-1]))
def test_folders_of_the_planner_import_none_above_them(below: int, folders: set[str]) -> None:
    above = {*(name for level in PLAN[below + 1 :] for name in level), "question"}
    paths = [path for folder in folders for path in sources(f"sora_spec/plan/{folder}")]
    assert len(paths) > 4
    for path in paths:
        modules = {tuple(name.split(".")[:3]) for name in imports(path, inside_functions=True)}
        assert {name for name in above if ("sora_spec", "plan", name) in modules} == set(), path


@pytest.mark.parametrize(
    "command", [["--help"], ["validate", "dit"], ["ls"], ["explain", "E301"], ["--version"]], ids=" ".join
)
def test_what_editors_call_imports_nothing_heavy_and_no_pydantic(command: list[str]) -> None:
    assert modules_after(command) & (HEAVY | {"pydantic"}) == set()


@pytest.mark.parametrize(
    "command",
    [
        *(["schema", "--check"], ["init", "-"], ["validate", "--help"]),
        *(["show", "dit"], ["diff", "dit", "dit"], ["plan", "dit", "--gpu", "h100"]),
        ["plan", "dit", "--gpu", "rtx4090", "--count", "1"],  # does not fit: fixes are sought
        ["plan", "latte", "--mode", "generate", "--gpu", "rtx4090", "--json"],
        ["plan", "tiny-latte", "--sweep", "--gpu", "cpu,h100", "--over", "train.batch=8,16"],
        ["plan", "tiny-latte", "--solve", "frames", "--gpu", "cpu"],
    ],
    ids=" ".join,
)
def test_light_verbs_import_nothing_heavy(command: list[str]) -> None:
    assert modules_after(command) & HEAVY == set()


def test_help_imports_no_verb() -> None:
    code = (
        "import sys; sys.argv = ['sora-spec', '--help']\n"
        "from sora_spec.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: print(*sorted(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    verbs = {name for name in result.stderr.split() if name.startswith("sora_spec.cli.")}
    assert verbs == {"sora_spec.cli.lazy", "sora_spec.cli.main"}
    for verb in (
        "init",
        "ls",
        "validate",
        "show",
        "schema",
        "explain",
        "doctor",
        "train",
        "generate",
        "export",
        "data",
    ):
        assert f" {verb} " in result.stdout


def modules_after(command: list[str]) -> set[str]:
    """Top-level modules that a verb has loaded when it ends."""
    code = (
        f"import sys; sys.argv = ['sora-spec', *{command!r}]\n"
        "from sora_spec.cli.main import run\n"
        "try: run()\n"
        "except SystemExit as stop: assert stop.code in (0, 1, None), stop.code\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


def test_importing_the_package_imports_nothing_but_its_errors() -> None:
    code = "import sora_spec, sys; dir(sora_spec); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert {name for name in loaded if name.startswith("sora_spec")} == {"sora_spec", "sora_spec.errors"}
    assert {name.split(".")[0] for name in loaded} & (HEAVY | {"pydantic", "ruamel"}) == set()
