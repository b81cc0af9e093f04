"""The documents tell the truth: each Python block runs and each relative link leads somewhere.

The ```` ```python ```` blocks of one file run in order, in one namespace, in an empty directory. A
block after the comment ``<!-- not run: reason -->`` is left out.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests import anchors as lines

ROOT = Path(__file__).resolve().parents[1]
RUN = [path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))] if path.exists()]
LINKED = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if not re.search(r"(^|/)(\.|build/|dist/|node_modules/)", path.relative_to(ROOT).as_posix())
]

FENCE = re.compile(
    r"(?P<skip><!--\s*not run:[^>]+-->\s*)?"
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<language>[\w+-]*)[^\n]*\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(
    r"\]\(<?([^)\s>]+)>?[^)]*\)"  # [text](target "title"), ![text](target)
    r"|^\[[^\]]+\]:\s*<?([^\s>]+)"  # [label]: target
    r"|\b(?:src|href)=\"([^\"]+)\"",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A piece of Python in a document, and the line on which it starts."""

    line: int
    code: str


def blocks(text: str) -> list[Block]:
    """Return the Python blocks that are meant to run, in order."""
    return [
        Block(text.count("\n", 0, match.start("code")) + 1, textwrap.dedent(match["code"]))
        for match in FENCE.finditer(text)
        if match["language"] == "python" and not match["skip"]
    ]


def run(path: Path, text: str) -> dict[str, object]:
    """Run the blocks of a document in one namespace; a traceback shows the document's own lines."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(text):
        exec(compile("\n" * (block.line - 1) + block.code, str(path), "exec"), namespace)
    return namespace


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as the usual renderers derive them."""
    headings = re.findall(r"^#+\s+(.+?)\s*#*$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path, text: str) -> list[str]:
    """Return the relative links of a document that lead to no file, or to no heading of it."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    targets = (next(filter(None, match.groups())) for match in LINK.finditer(prose))
    return [target for target in targets if not resolves(path, text, target)]


def resolves(path: Path, text: str, target: str) -> bool:
    """Say whether a link in a document leads somewhere; what is not relative is taken on trust."""
    if re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.IGNORECASE):
        return True
    name, _, anchor = unquote(target).partition("#")
    file = path.parent / name
    if name and (not anchor or file.suffix != ".md" or not file.exists()):
        return file.exists()
    return anchor in anchors(file.read_text("utf-8") if name else text)


def shown(path: Path) -> str:
    """Return a path relative to the root, as a test's name."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", RUN, ids=shown)
def test_every_python_block_runs(path, tmp_path, monkeypatch, global_seed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    run(path, path.read_text("utf-8"))


@pytest.mark.parametrize("path", LINKED, ids=shown)
def test_every_relative_link_leads_somewhere(path):
    assert broken_links(path, path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", RUN, ids=shown)
def test_a_link_to_a_name_leads_to_the_line_of_its_definition(path):
    assert lines.stale(path, path.read_text("utf-8")) == []


def test_every_equation_of_the_theory_leads_to_its_code():
    assert lines.unanchored((ROOT / "docs" / "theory.md").read_text("utf-8")) == []


EXAMPLE = """# A title, *twice*

```python
a = 1
```

<!-- not run: needs a GPU -->
```python
raise RuntimeError
```

1. In a list:

   ```python
   b = a + 1
   ```

```text
[not a link](nowhere.md)
```

[fine](other.md#one--two) [here](#a-title-twice) [out](https://example.org) `[x](y)`
"""


def test_blocks_share_a_namespace_and_skipped_ones_do_not_run():
    assert [block.line for block in blocks(EXAMPLE)] == [4, 15]
    assert run(Path("example.md"), EXAMPLE)["b"] == 2


def test_an_error_in_a_block_is_reported_at_the_line_of_the_document():
    with pytest.raises(ZeroDivisionError) as caught:
        run(Path("example.md"), EXAMPLE.replace("a + 1", "1 / 0"))
    assert caught.traceback[-1].lineno + 1 == 15


def test_a_link_to_no_file_or_no_heading_is_reported(tmp_path):
    path = tmp_path / "example.md"
    (tmp_path / "other.md").write_text("## One: two\n\n## One & two\n", "utf-8")
    assert broken_links(path, EXAMPLE) == []
    wrong = EXAMPLE + "[a](gone.md) [b](other.md#three) ![c](gone.png)\n\n[d]: gone.txt\n"
    assert broken_links(path, wrong) == ["gone.md", "other.md#three", "gone.png", "gone.txt"]


CODE = "x = 1\n\n\n@final\nclass A:\n    def f(self): ...\n\n\ndef f(): ...\n"
POINTED = "[`A`](a.py#L5) [`A.f`](a.py#L6) [`f`](a.py#L9)"


def test_a_moved_line_is_reported_and_the_cure_mends_it(tmp_path):
    document = tmp_path / "example.md"
    (tmp_path / "a.py").write_text(CODE, "utf-8")
    assert lines.stale(document, POINTED) == []
    moved = POINTED.replace("L6", "L7")
    assert lines.stale(document, moved) == [
        "A.f stands in line 6 of a.py, not 7: run `python -m tests.anchors`"
    ]
    assert lines.renumbered(document, moved) == POINTED
    for gone in ("[`g`](a.py#L1)", "[`A`](b.py#L1)"):
        assert "is not defined in" in lines.stale(document, gone)[0]
        assert lines.renumbered(document, gone) == gone


def test_an_equation_without_code_is_reported():
    linked, heading = "$$ a = b $$\n\n[`f`](a.py#L1)\n\n", "## Next\n\n"
    assert lines.unanchored(linked + "| $x$ | [`f`](a.py#L1) |\n") == []
    assert lines.unanchored("$$ c\n= d $$\n\n" + linked) == ["$$ c\n= d $$"]
    assert lines.unanchored("$$ e $$\n\n" + heading + "[`f`](a.py#L1)\n") == ["$$ e $$"]
    assert lines.unanchored("| $y$ | words |\n") == ["| $y$ | words |"]
