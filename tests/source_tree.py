"""A package read as data: its modules, what they import, and its classes with bases resolved."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

ROOT = "reversal"
MARKERS = {"Protocol", "NamedTuple", "TypedDict", "Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"}
EXCEPTIONS = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


def dotted(node: ast.AST | None) -> str:
    """Return ``a.b.c`` for a name, an attribute, or a subscript or call of them; else nothing."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Subscript):
        return dotted(node.value)
    if isinstance(node, ast.Call):
        return dotted(node.func)
    return node.id if isinstance(node, ast.Name) else ""


def last(name: str) -> str:
    """Return the part of a dotted name after the last dot."""
    return name.rpartition(".")[2]


@dataclass(frozen=True)
class Imported:
    """One imported name: ``from module import name as alias``, or ``import module as alias``."""

    module: str
    name: str | None
    alias: str
    line: int
    is_typing_only: bool

    @property
    def origin(self) -> str:
        """The full dotted name that the alias stands for."""
        if self.name is None:
            return self.alias if self.module.startswith(f"{self.alias}.") else self.module
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Module:
    """A source file: its path below the package, its dotted name there, and what it holds."""

    path: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    @property
    def name(self) -> str:
        parts = PurePosixPath(self.path).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)

    @property
    def family(self) -> str:
        """The file or folder directly below the package."""
        return self.name.split(".")[0]

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return [node for node in ast.walk(self.tree) if isinstance(node, kinds)]

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        return {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)}

    @cached_property
    def imports(self) -> list[Imported]:
        return list(self._imports(self.tree, is_typing_only=False))

    def _imports(self, node: ast.AST, *, is_typing_only: bool) -> Iterator[Imported]:
        if isinstance(node, ast.Import):
            for item in node.names:
                alias = item.asname or item.name.split(".")[0]
                yield Imported(item.name, None, alias, node.lineno, is_typing_only)
        elif isinstance(node, ast.ImportFrom):
            for item in node.names:
                alias = item.asname or item.name
                yield Imported(self._source(node), item.name, alias, node.lineno, is_typing_only)
        guarded = node.body if isinstance(node, ast.If) and self._is_for_typing(node) else []
        for child in ast.iter_child_nodes(node):
            yield from self._imports(child, is_typing_only=is_typing_only or child in guarded)

    @staticmethod
    def _is_for_typing(node: ast.If) -> bool:
        return last(dotted(node.test)) == "TYPE_CHECKING"

    def _source(self, node: ast.ImportFrom) -> str:
        here = (ROOT, *PurePosixPath(self.path).parts[:-1])
        base = here[: len(here) - node.level + 1] if node.level else ()
        return ".".join([*base, node.module] if node.module else base)


@dataclass(frozen=True, eq=False)
class Class:
    """A class of the package, with its bases inside it and the names of those outside."""

    module: Module
    node: ast.ClassDef
    inside: list[Class]
    outside: list[str]

    def __str__(self) -> str:
        return f"{self.module.path}:{self.node.lineno}: {self.node.name}"

    @property
    def is_apart(self) -> bool:
        """Exceptions, enumerations, named tuples and protocols build trees of their own."""
        if any(last(name) in MARKERS | EXCEPTIONS for name in self.outside):
            return True
        return bool(self.inside) and all(base.is_apart for base in self.inside)

    @property
    def bases(self) -> list[Class]:
        return [base for base in self.inside if not base.is_apart]

    @property
    def ancestors(self) -> list[Class]:
        found = {base: None for base in self.bases}
        for base in self.bases:
            found |= {ancestor: None for ancestor in base.ancestors}
        return list(found)

    @property
    def depth(self) -> int:
        return 1 + max((base.depth for base in self.bases), default=0)

    @property
    def is_final(self) -> bool:
        return any(last(dotted(mark)) == "final" for mark in self.node.decorator_list)

    @cached_property
    def members(self) -> dict[str, str]:
        """What the class body defines: a value, a concrete method or an abstract one."""
        found: dict[str, str] = {}
        for node in self.node.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                marks = {last(dotted(mark)) for mark in node.decorator_list}
                found[node.name] = "abstract" if "abstractmethod" in marks else "concrete"
            targets = node.targets if isinstance(node, ast.Assign) else [node]
            for target in targets:
                name = dotted(target.target if isinstance(target, ast.AnnAssign) else target)
                found |= {name: "value"} if name else {}
        return found

    @property
    def abstract(self) -> set[str]:
        """The names that a subclass has yet to supply."""
        inherited = {name for base in self.bases for name in base.abstract}
        own = {name for name, kind in self.members.items() if kind == "abstract"}
        return own | (inherited - self.members.keys())


class Package:
    """The modules of a package by dotted name, read from ``{path: source}``, and its classes."""

    def __init__(self, files: dict[str, str]) -> None:
        modules = [Module(path, source) for path, source in sorted(files.items())]
        self.modules = {module.name: module for module in modules}
        self._found: dict[ast.ClassDef, Class] = {}

    @property
    def classes(self) -> list[Class]:
        return [self._class(module, node) for module in self for node in module.classes.values()]

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    def _class(self, module: Module, node: ast.ClassDef) -> Class:
        if node not in self._found:
            bases = {dotted(base): self._resolve(module, dotted(base)) for base in node.bases}
            inside = [base for base in bases.values() if base]
            outside = [name for name, base in bases.items() if not base]
            self._found[node] = Class(module, node, inside, outside)
        return self._found[node]

    def _resolve(self, module: Module | None, name: str, hops: int = 8) -> Class | None:
        """Find the class that a dotted name means in a module, through re-exports."""
        if module is None or hops == 0:
            return None
        if name in module.classes:
            return self._class(module, module.classes[name])
        head, dot, rest = name.partition(".")
        for item in module.imports:
            place, _, end = f"{item.origin}{dot}{rest}".rpartition(".")
            if item.alias == head and place.split(".")[0] == ROOT:
                inside = place.removeprefix(ROOT).removeprefix(".") or "__init__"
                return self._resolve(self.modules.get(inside), end, hops - 1)
        return None
