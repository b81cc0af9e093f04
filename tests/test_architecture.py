"""The rules that keep the package readable, each tried on a synthetic violation as well.

A rule reads a package and yields sentences, one per violation. Rules hold for whatever part of the
package exists.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.source_tree import ROOT, Imported, Package, dotted

SOURCE = Path(__file__).resolve().parents[1] / "src"

# A module imports only what stands before it; a folder counts as one module.
LAYOUT = [
    *("errors", "state", "noise", "grids", "generators", "estimates", "space", "questions", "core"),
    *("operators", "clocks", "one_site", "schedules", "spaces", "ode", "processes"),
    *("parametrizations", "denoisers", "objectives", "samplers", "guidance", "likelihood"),
    *(
        "restrictions",
        "networks",
        "training",
        "data",
        "amortized",
        "datasets",
        "metrics",
        "answers",
        "model",
        "testing",
    ),
    *("report", "cli"),
]
GATHERS = ("__init__", "__main__")
LINES = {"core.py": 300}
HEAVY = ["sklearn", "pyarrow", "matplotlib", "pandas", "scipy", "typer", "rich", "jinja2"]
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "torch.save", "joblib.load", "joblib.dump"}
FREE_TO_OVERRIDE = {"__init__", "__post_init__", "__repr__"}
CURE = "store safetensors and JSON"


def imports_point_down(package: Package) -> Iterator[str]:
    """A module imports only what stands above it in the layout; a network imports torch alone."""
    for module in package:
        if module.family in GATHERS:
            continue
        if module.family not in LAYOUT:
            yield f"{module.path}:1: {module.family} has no place in LAYOUT: give it one"
            continue
        above = LAYOUT[: LAYOUT.index(module.family) + 1]
        above += GATHERS if module.family == "cli" else ()
        for item in module.imports:
            family = imported_family(item)
            where = f"{module.path}:{item.line}"
            if item.is_typing_only or family == module.family:
                continue
            if family and family not in above:
                yield f"{where}: {module.family} imports {family}, which stands below it"
            known = {*sys.stdlib_module_names, "torch"}
            if module.family == "networks" and item.module.split(".")[0] not in known:
                yield f"{where}: networks imports {item.module}: a network is plain torch"


def imported_family(item: Imported) -> str | None:
    """Return which entry of the layout an import reaches; nothing for what is foreign."""
    root, _, rest = item.module.partition(".")
    if root != ROOT:
        return None
    if rest:
        return rest.split(".")[0]
    return item.name if item.name in LAYOUT else "__init__"


def budgets_hold(package: Package) -> Iterator[str]:
    """A file has at most 400 lines, core.py 300, a function body 50 without its docstring."""
    for module in package:
        lines, budget = len(module.source.splitlines()), LINES.get(module.path, 400)
        if lines > budget:
            yield f"{module.path}:1: {lines} lines, at most {budget}: split it"
        for node in module.functions:
            body = node.body[ast.get_docstring(node) is not None :]
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > 50:
                yield f"{module.path}:{node.lineno}: {node.name} has {length} lines, at most 50"


def inheritance_is_shallow(package: Package) -> Iterator[str]:
    """Inheritance goes root, family, leaf, and a leaf is final; Path stands above its roots."""
    extended = {base for cls in package.classes for base in cls.bases}
    for cls in package.classes:
        depth = cls.depth - any(base.node.name == "Path" for base in cls.ancestors)
        if depth > 3:
            yield f"{cls} is {depth} deep, at most 3: compose instead"
        is_leaf = bool(cls.bases) and cls not in extended and not cls.abstract
        if is_leaf and not cls.is_final:
            yield f"{cls} is a leaf: mark it @final"


def concrete_methods_stay(package: Package) -> Iterator[str]:
    """No class overrides a concrete method of its ancestors in the package."""
    for cls in package.classes:
        for base in cls.ancestors:
            concrete = {name for name, kind in base.members.items() if kind == "concrete"}
            for name in sorted(concrete & cls.members.keys() - FREE_TO_OVERRIDE):
                yield f"{cls}.{name} overrides a concrete method of {base.node.name}"


def nothing_is_unsafe(package: Package) -> Iterator[str]:
    """Nothing is unpickled or evaluated, no assert in place of an error, no star import."""
    for module in package:
        for item in module.imports:
            if item.module.split(".")[0] in UNSAFE_MODULES or item.origin in UNSAFE_CALLS:
                yield f"{module.path}:{item.line}: imports {item.origin}: {CURE}"
            if item.name == "*":
                yield f"{module.path}:{item.line}: import *: name what is imported"
        for node in ast.walk(module.tree):
            where = f"{module.path}:{getattr(node, 'lineno', 1)}"
            if isinstance(node, ast.Assert):
                yield f"{where}: assert: raise an error that says expected, got and cure"
            if isinstance(node, ast.Call) and dotted(node.func) in UNSAFE_CALLS:
                yield f"{where}: calls {dotted(node.func)}: {CURE}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                yield f"{where}: allow_pickle: {CURE}"


def eagerly_loaded(root: Path) -> list[str]:
    """Return the heavy packages that ``import reversal`` loads and ``import torch`` does not."""
    code = (
        f"import sys, torch; before = set(sys.modules); import {ROOT}; "
        f"print(*[name for name in {HEAVY} if name in set(sys.modules) - before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"`import {ROOT}` failed:\n{done.stderr}", pytrace=False)
    return done.stdout.split()


Rule = Callable[[Package], Iterator[str]]
RULES: list[Rule] = [
    imports_point_down,
    budgets_hold,
    inheritance_is_shallow,
    concrete_methods_stay,
    nothing_is_unsafe,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_obeys(rule):
    root = SOURCE / ROOT
    paths = root.rglob("*.py")
    files = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in paths}
    violations = list(rule(Package(files)))
    if violations:
        pytest.fail("\n".join([rule.__doc__, *violations]), pytrace=False)


def test_import_loads_nothing_heavy():
    if not (SOURCE / ROOT / "__init__.py").exists():
        pytest.skip("the package has no __init__ yet")
    assert eagerly_loaded(SOURCE) == []


def test_an_eager_heavy_import_is_reported(tmp_path):
    (tmp_path / ROOT).mkdir()
    (tmp_path / ROOT / "__init__.py").write_text("from reversal import report\n", "utf-8")
    (tmp_path / ROOT / "report.py").write_text("import jinja2\n", "utf-8")
    assert eagerly_loaded(tmp_path) == ["jinja2"]


SPACE = "class Space:\n    @abstractmethod\n    def f(self): ...\n"
LINE = "from reversal.core import Space\nclass Line(Space):\n    def f(self): ...\n"
FINAL_LINE = LINE.replace("class", "@final\nclass")
HALF = "import reversal.spaces as s\n@final\nclass Half(s.Line):\n    "
LONG = "def f():\n    'One.'\n" + "    x = 1\n" * 50
DEEP = "class A: ...\nclass B(A): ...\nclass C(B): ...\n@final\nclass D(C): ...\n"
SAME_INIT = "class A:\n    def __init__(self): ...\nclass B(A):\n    def __init__(self): ...\n"

OBEYED: list[tuple[Rule, dict[str, str]]] = [
    (imports_point_down, {}),
    (imports_point_down, {"core.py": "import torch\nfrom reversal import state, noise"}),
    (imports_point_down, {"spaces/torus.py": "from . import product\nfrom ..core import Space"}),
    (imports_point_down, {"core.py": "if TYPE_CHECKING:\n    from reversal.spaces import Torus"}),
    (imports_point_down, {"networks/mlp.py": "import math\nfrom torch import nn"}),
    (imports_point_down, {"cli/fit.py": "import reversal", "__init__.py": "import reversal.cli"}),
    (budgets_hold, {"core.py": "x = 1\n" * 300, "noise.py": LONG}),
    (inheritance_is_shallow, {"core.py": SPACE + "class Manifold(Space): ..."}),
    (inheritance_is_shallow, {"core.py": SPACE, "spaces/line.py": FINAL_LINE}),
    (inheritance_is_shallow, {"errors.py": "class A(Exception): ...\nclass B(A, OSError): ..."}),
    (inheritance_is_shallow, {"core.py": "class A(Protocol[T]): ...\nclass B(A): ..."}),
    (concrete_methods_stay, {"core.py": SPACE, "spaces/line.py": FINAL_LINE}),
    (concrete_methods_stay, {"core.py": SAME_INIT}),
    (nothing_is_unsafe, {"model.py": "model.eval()\nfrom safetensors.torch import load"}),
]

VIOLATED: list[tuple[Rule, str, dict[str, str]]] = [
    (imports_point_down, "core.py:1", {"core.py": "from reversal.spaces.torus import Torus"}),
    (imports_point_down, "core.py:1", {"core.py": "from reversal import spaces"}),
    (imports_point_down, "core.py:1", {"core.py": "import reversal.model as m"}),
    (imports_point_down, "__init__", {"core.py": "import reversal"}),
    (imports_point_down, "imports model", {"spaces/torus.py": "from ..model import Model"}),
    (imports_point_down, "torus.py:2", {"spaces/torus.py": "def f():\n    from .. import cli"}),
    (imports_point_down, "core.py:2", {"core.py": "if not x:\n    import reversal.cli"}),
    (
        imports_point_down,
        "core.py:4",
        {"core.py": "if TYPE_CHECKING:\n    x = 1\nelse:\n    import reversal.cli"},
    ),
    (imports_point_down, "plain torch", {"networks/mlp.py": "import numpy"}),
    (imports_point_down, "plain torch", {"networks/mlp.py": "from reversal import state"}),
    (imports_point_down, "no place", {"extras.py": ""}),
    (imports_point_down, "imports report", {"testing/spaces.py": "from reversal import report"}),
    (budgets_hold, "301 lines", {"core.py": "x = 1\n" * 301}),
    (budgets_hold, "401 lines", {"noise.py": "x = 1\n" * 401}),
    (budgets_hold, "f has 51 lines", {"noise.py": LONG + "    return x"}),
    (inheritance_is_shallow, "Line is a leaf", {"core.py": SPACE, "spaces/line.py": LINE}),
    (inheritance_is_shallow, "D is 4 deep", {"core.py": DEEP}),
    (
        inheritance_is_shallow,
        "Leaf is a leaf",
        {
            "core.py": "class Space: ...",
            "spaces/__init__.py": "from reversal.core import Space",
            "processes/leaf.py": "from reversal import spaces\nclass Leaf(spaces.Space): ...",
        },
    ),
    (
        concrete_methods_stay,
        "Half.f overrides",
        {"core.py": SPACE, "spaces/__init__.py": LINE, "processes/half.py": HALF + "f: int"},
    ),
    (
        concrete_methods_stay,
        "Half.f overrides",
        {"core.py": SPACE, "spaces/__init__.py": LINE, "processes/half.py": HALF + "def f(s): ..."},
    ),
    (nothing_is_unsafe, "imports pickle", {"model.py": "import pickle"}),
    (nothing_is_unsafe, "model.py:2", {"model.py": "def f():\n    from torch import load"}),
    (nothing_is_unsafe, "calls torch.load", {"model.py": "x = torch.load('x')"}),
    (nothing_is_unsafe, "calls torch.save", {"model.py": "torch.save(x, 'x')"}),
    (nothing_is_unsafe, "calls eval", {"model.py": "eval('1')"}),
    (nothing_is_unsafe, "calls exec", {"model.py": "exec('1')"}),
    (nothing_is_unsafe, "allow_pickle", {"model.py": "np.load('x', allow_pickle=True)"}),
    (nothing_is_unsafe, "model.py:1: assert", {"model.py": "assert x"}),
    (nothing_is_unsafe, "import *", {"model.py": "from math import *"}),
]


@pytest.mark.parametrize(("rule", "files"), OBEYED)
def test_a_rule_lets_pass_what_obeys_it(rule, files):
    assert list(rule(Package(files))) == []


@pytest.mark.parametrize(("rule", "said", "files"), VIOLATED)
def test_a_rule_reports_what_violates_it(rule, said, files):
    violations = list(rule(Package(files)))
    assert len(violations) == 1
    assert said in violations[0]
