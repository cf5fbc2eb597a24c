"""Breaks the rules of the model graph one at a time: every place of its sources, changed in every way that is known.

A mutant is one changed node of one function's syntax tree. It is put in place by exchanging the function's code object,
so that modules which imported the function see it too, and taken away again.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import copy
import importlib
import pkgutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import sora_spec.graph.eager.ops
import sora_spec.graph.lower

NAMED = (
    *("run", "run_one", "unary", "binary", "copy", "reduce", "matrix"),
    *("activation", "keeps_input", "keeps_result"),
)
"""Functions whose first argument is the name of a kernel."""
DTYPES = {"F32": "BF16", "BF16": "F32", "INT64": "F32", "BOOL": "F32", "UINT64": "F32"}

_BACKWARDS = ast.Slice(step=ast.UnaryOp(ast.USub(), ast.Constant(1)))


@dataclass(frozen=True)
class Mutant:
    """One change."""

    module: str
    function: str
    """Qualified name of the function or method that holds it."""
    line: int
    what: str
    """The operator's name and the changed source."""
    code: CodeType

    def __str__(self) -> str:
        return f"{self.module.removeprefix('sora_spec.graph.')}:{self.line} {self.function}: {self.what}"


def rule_modules() -> list[ModuleType]:
    """The modules that hold rules and lowerings."""
    names = [
        f"{package.__name__}.{found.name}"
        for package in (sora_spec.graph.eager.ops, sora_spec.graph.lower)
        for found in pkgutil.iter_modules(package.__path__)
        if found.name != "families"  # which lowerings there are: no rule of any
    ]
    return [
        importlib.import_module(name)
        for name in [*names, "sora_spec.graph.eager.engine", "sora_spec.graph.eager.recompute"]
    ]


def mutants_of(module: ModuleType) -> Iterator[Mutant]:
    """Every mutant of a module's functions, in the order of the source."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    tree = ast.parse(source)
    for path, function in _functions(tree):
        for number, (what, node) in enumerate(_places(function)):
            changed = copy.deepcopy(function)
            _apply(changed, number)
            code = _compiled(changed, path, module.__file__)
            yield Mutant(module.__name__, ".".join(path), node.lineno, f"{what}: {ast.unparse(node)[:70]}", code)


def _functions(tree: ast.Module) -> Iterator[tuple[tuple[str, ...], ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield (node.name,), node
        elif isinstance(node, ast.ClassDef) and not any(ast.unparse(base) == "Protocol" for base in node.bases):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield (node.name, inner.name), inner


def _compiled(function: ast.FunctionDef, path: tuple[str, ...], file: str) -> CodeType:
    """Code of one function, compiled alone, or alone in its class."""
    function.decorator_list = []
    body: list[ast.stmt] = [function]
    if len(path) > 1:
        body = [ast.ClassDef(path[0], [], [], body, [], lineno=1, col_offset=0)]
    tree = ast.fix_missing_locations(ast.Module(body, []))
    code = compile(tree, file, "exec", flags=__future__.annotations.compiler_flag)
    for name in path:
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)
    return code


def _places(function: ast.FunctionDef) -> Iterator[tuple[str, ast.AST]]:
    """What can be changed, in a fixed order: name of the operator and the node."""
    for node in _walk(function):
        for what, _ in _changes(node):
            yield what, node


def _walk(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Nodes of the body, without annotations, decorators, docstrings, assertions and messages of errors."""
    stack: list[ast.AST] = list(reversed(function.body))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Assert | ast.Raise | ast.AnnAssign):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        yield node
        children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.arguments)]
        stack.extend(reversed(children))


def _changes(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Operators that fit a node, each with a function that changes it in place or gives its replacement."""
    if isinstance(node, ast.Delete):
        yield "nothing is freed", lambda: ast.Pass()
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "number off by one", lambda: ast.Constant(node.value + 1)
    if isinstance(node, ast.If | ast.IfExp):
        yield "condition turned", lambda: _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "DType" and node.attr in DTYPES:
        yield "other type", lambda: _with(node, attr=DTYPES[node.attr])
    if isinstance(node, ast.Call):
        yield from _call_changes(node)


def _call_changes(node: ast.Call) -> Iterator[tuple[str, Any]]:
    name = ast.unparse(node.func)
    if name.endswith(".save"):
        for place in range(len(node.args)):
            yield (
                f"argument {place} is not saved",
                lambda place=place: _with(
                    node, args=[ast.Constant(None) if i == place else a for i, a in enumerate(node.args)]
                ),
            )
    elif name.endswith("_strides"):
        yield "strides turned", lambda: ast.Subscript(node, _BACKWARDS, ast.Load())
    elif name in NAMED and node.args and isinstance(node.args[0], ast.Constant):
        first = node.args[0]
        yield "other kernel", lambda: _with(node, args=[ast.Constant(f"{first.value}_"), *node.args[1:]])
        if name in ("unary", "binary", "copy"):
            yield "kernel left out", lambda: node.args[1]
    elif isinstance(node.func, ast.Name) and node.func.id.islower() and node.args and _droppable(node):
        yield "call left out", lambda: node.args[0]


def _droppable(node: ast.Call) -> bool:
    """Whether a call can be left out and its first argument take its place: Python's own, as `tuple`, make no ops."""
    own = isinstance(node.func, ast.Name) and (hasattr(builtins, node.func.id) or node.func.id in ("prod", "numbered"))
    return not own and len(node.args) < 4 and not isinstance(node.args[0], ast.Starred)


def _with(node: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(node, name, value)
    return node


class _Replacer(ast.NodeTransformer):
    """Puts one node in place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else self.generic_visit(node)


def _apply(function: ast.FunctionDef, number: int) -> None:
    places = [(node, change) for node in _walk(function) for _, change in _changes(node)]
    node, change = places[number]
    new = change()
    if new is not node:
        # The replacement may hold the node itself, which must not be replaced within it.
        function.body = [_Replacer(node, new).visit(statement) for statement in function.body]


@contextmanager
def in_place(mutant: Mutant) -> Generator[None]:
    """Let the mutant run in place of the rule while the body runs."""
    target: Any = importlib.import_module(mutant.module)
    for name in mutant.function.split("."):
        target = target.__dict__[name]
    function = getattr(target, "__wrapped__", getattr(target, "fget", None) or target)
    assert isinstance(function, FunctionType), mutant
    clear = getattr(target, "cache_clear", lambda: None)
    own = function.__code__
    clear()
    function.__code__ = mutant.code
    try:
        yield
    finally:
        function.__code__ = own
        clear()
