"""Every example runs from the command line, holds its own assertions and draws its picture."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUICK = {"theory_errors", "theory_steps"}
"""The scripts that take less than four seconds."""
SCRIPTS = [
    pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow])
    for path in sorted((ROOT / "examples").glob("[!_]*.py"))
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_example_holds(script: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
        "PYTHONPATH": str(ROOT / "src"),
    }
    command = [sys.executable, "-W", "error::RuntimeWarning", str(script)]
    out = tmp_path / "pictures"
    draws = '"--out"' in script.read_text("utf-8")
    if draws:
        command += ["--out", str(out)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    if draws:
        picture = f"{script.stem.replace('_', '-')}.png"
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
        assert (ROOT / "docs" / "pictures" / picture).stat().st_size < 64_000


def process_lines(source: str) -> list[str]:
    """What a process takes: all that stands before the network, without imports and blank lines."""
    tree, lines = ast.parse(source), source.splitlines()
    kept: list[str] = []
    for node in tree.body[1:]:
        if isinstance(node, ast.ClassDef) and node.name == "Network":
            return kept
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr):
            shown = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            kept += [lines[k - 1] for k in shown if lines[k - 1].strip()]
    raise ValueError("Expected a class Network, got none.")


@pytest.mark.parametrize("name", ["birth_death", "reflected_polytope", "jump_diffusion"])
def test_a_process_takes_at_most_40_lines(name):
    lines = process_lines((ROOT / "examples" / f"{name}.py").read_text("utf-8"))
    assert any("FromGenerator" in line for line in lines)
    assert len(lines) <= 40, "\n".join(lines)
