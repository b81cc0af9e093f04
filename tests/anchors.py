"""Links from documents to the lines of the code: ``[`Class.method`](../src/file.py#L12)``.

The name says what is meant, the line where it stands today. ``python -m tests.anchors`` writes the
lines anew; ``tests/test_docs.py`` fails where they are out of date, or where an equation of
``docs/theory.md`` has no such link.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ANCHOR = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<file>[^)#\s]+\.py)#L(?P<line>\d+)\)")
CURE = "run `python -m tests.anchors`"
EQUATION = re.compile(r"^\$\$.*?\$\$$", re.MULTILINE | re.DOTALL)


@lru_cache
def definitions(path: Path) -> dict[str, int]:
    """The line of the ``def`` or ``class`` of every name in a file, such as ``Class.method``."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, int]]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name, node.lineno
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, f"{prefix}{node.name}.")

    return dict(walk(ast.parse(path.read_text("utf-8")).body, ""))


def stale(document: Path, text: str) -> list[str]:
    """One sentence for every link whose line is not that of the name it shows."""
    wrong = []
    for match in ANCHOR.finditer(text):
        name, file, line = match["name"], document.parent / match["file"], int(match["line"])
        found = definitions(file.resolve()).get(name) if file.exists() else None
        if found is None:
            wrong.append(f"{name} is not defined in {match['file']}: name what is")
        elif found != line:
            wrong.append(f"{name} stands in line {found} of {match['file']}, not {line}: {CURE}")
    return wrong


def renumbered(document: Path, text: str) -> str:
    """The document with the lines of today; a name that is nowhere keeps its old line."""

    def line(match: re.Match[str]) -> str:
        file = (document.parent / match["file"]).resolve()
        found = definitions(file).get(match["name"]) if file.exists() else None
        return f"[`{match['name']}`]({match['file']}#L{found or match['line']})"

    return ANCHOR.sub(line, text)


def unanchored(text: str) -> list[str]:
    """The displayed equations, and the rows of tables with a formula, that lead to no code.

    A displayed equation is answered for by a link before the next one or the next heading.
    """
    starts = [match.span() for match in EQUATION.finditer(text)]
    bare = []
    for k, (start, end) in enumerate(starts):
        stop = starts[k + 1][0] if k + 1 < len(starts) else len(text)
        after = re.split(r"^#", text[end:stop], maxsplit=1, flags=re.MULTILINE)[0]
        if not ANCHOR.search(after):
            bare.append(text[start:end])
    rows = re.findall(r"^\|.*\$.*\|$", text, re.MULTILINE)
    return bare + [row for row in rows if not re.search(r"\.py#L|/examples/", row)]


def main() -> None:
    """Write the lines of every document anew."""
    for document in sorted(ROOT.glob("docs/*.md")):
        text = document.read_text("utf-8")
        document.write_text(renumbered(document, text), "utf-8")
        for sentence in stale(document, renumbered(document, text)):
            print(f"{document.relative_to(ROOT)}: {sentence}")


if __name__ == "__main__":
    main()
