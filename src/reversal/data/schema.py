"""`space.yaml`: what each column of a table is, in words that a caller may change.

    version: 1
    columns:
      species:
        type: category
        categories: [Adelie, Chinstrap, Gentoo]

A column has a type and a few fields (`declared`); what is left out is taken from the data, columns
too. Nothing that is learned stands here: knots and fits are the run's.

What is declared is what can be: `categories` of a category, `values` of levels (``values: [1, 2, 5,
10]``), `least` and `greatest` of numbers. It may be more than was seen. A category or level that no
row had is drawn as rarely as the model learns, and a condition that allows nothing else is refused.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from pydantic import TypeAdapter, ValidationError

from reversal.data.column import Column
from reversal.data.declared import AnyDeclared, Declared
from reversal.data.frames import near, replacing
from reversal.errors import DataError

VERSION = 1
MOST_LISTED = 1000
HEAD = """\
# What each column is. Change a type or a field, and fit again with `--space space.yaml`.
# Types: real, integer, levels (whole numbers of few values), category, ordered category, boolean,
# date, datetime, time, duration, identifier (not modelled, new ones for new rows), constant,
# drop (left out).
# What is left out here is taken from the data.
"""


@final
@dataclass(frozen=True)
class Schema:
    """What is declared of columns, by name."""

    columns: Mapping[str, Declared]

    @classmethod
    def parse(cls, text: str, place: str = "space.yaml") -> Schema:
        """Read the text of a schema.

        Raises:
            DataError: if it is no YAML, or a field is none or has a wrong value; the sentence names
                column, field and cure.
        """
        tree = _mapping(_loaded(text, place), place)
        unknown = [key for key in tree if key not in ("version", "columns")]
        if unknown:
            cure = near(str(unknown[0]), ["version", "columns"])
            raise DataError(f"Expected version and columns in {place}, got {unknown[0]!r}; {cure}")
        if tree.get("version") != VERSION:
            raise DataError(
                f"Expected `version: {VERSION}` in {place}, got {tree.get('version')!r}. "
                "Write it anew with `reversal schema FILE --out space.yaml`."
            )
        columns = _mapping(tree.get("columns"), f"`columns` of {place}")
        return cls({str(name): _declared(str(name), what) for name, what in columns.items()})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Schema:
        """Read the file of a schema.

        Raises:
            DataError: if there is none, or it cannot be read.
        """
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"Expected a schema at {str(path)!r}, got: {getattr(error, 'strerror', error)}. "
                "Write one with `reversal schema FILE --out space.yaml`."
            ) from error
        return cls.parse(text, repr(str(path)))

    def of(self, names: Collection[str]) -> dict[str, Declared]:
        """Return what is declared of the columns of a table.

        Raises:
            DataError: if a column that is declared is not there.
        """
        for name in self.columns:
            if name not in names:
                raise DataError(
                    f"Expected a column {name!r}, which space.yaml declares, got a table without "
                    f"it; {near(name, names)} Mend the name, or take it out of space.yaml."
                )
        return dict(self.columns)


def schema_text(columns: Collection[Column], dropped: Collection[str] = ()) -> str:
    """Return columns as the text of a schema, with what was seen of each as a comment."""
    lines = [HEAD, f"version: {VERSION}", "columns:"]
    for column in columns:
        fields = {"type": column.kind, **column.declare()}
        note = f"{column.detail}; {100 * column.missing:.1f} % missing"
        lists = [key for key, value in fields.items() if isinstance(value, list)]
        for key in lists:
            if len(fields[key]) > MOST_LISTED:
                note += f"; {key} as in the data"
                del fields[key]
        lines += [f"  # {_one_line(note)}", _indented({column.name: fields})]
    lines += [_indented({name: {"type": "drop"}}) for name in dropped]
    return "\n".join(lines) + "\n"


def write_schema(text: str, path: str | os.PathLike[str]) -> None:
    """Write the text of a schema, whole or not at all.

    Raises:
        DataError: if the folder cannot be written to.
    """
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def _indented(tree: dict[str, Any]) -> str:
    """Return a column as YAML: a line per field, lists in one line."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    tag = yaml.resolver.BaseResolver.DEFAULT_SEQUENCE_TAG
    Dumper.add_representer(list, lambda d, v: d.represent_sequence(tag, v, flow_style=True))
    text = yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=96)
    return "\n".join(f"  {line}" if line else line for line in text.rstrip("\n").split("\n"))


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def _loaded(text: str, place: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        twice = [key for k, key in enumerate(keys) if key in keys[:k]]
        if twice:
            line = node.start_mark.line + 1
            raise DataError(
                f"Expected each name once in {place}, got {twice[0]!r} again in what begins in "
                f"line {line}. Delete one of the two."
            )
        return dict(
            zip(keys, (loader.construct_object(v, True) for _, v in node.value), strict=True)
        )

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, TypeError) as error:
        said = " ".join(str(error).split())
        raise DataError(
            f"Expected YAML in {place}, got: {said}. Mend the place, or write the file anew with "
            "`reversal schema FILE --out space.yaml`."
        ) from error


def _mapping(tree: Any, place: str) -> Mapping[Any, Any]:
    if not isinstance(tree, Mapping):
        raise DataError(
            f"Expected names and what they are in {place}, got {type(tree).__name__}. Write it "
            "anew with `reversal schema FILE --out space.yaml`."
        )
    return tree


def _declared(name: str, what: Any) -> Declared:
    """Return what is declared of a column.

    Raises:
        DataError: if it is not what a column can be.
    """
    what = {"type": what} if isinstance(what, str) else what
    try:
        return TypeAdapter(AnyDeclared).validate_python(what)
    except ValidationError as error:
        raise DataError(_said(name, what, error)) from error


def _said(name: str, what: Any, error: ValidationError) -> str:
    """Return the first thing that is wrong with a column, and its cure."""
    from reversal.data.declared import KINDS

    first = error.errors()[0]
    column = f"Column {name!r} of space.yaml"
    if not isinstance(what, Mapping) or "type" not in what:
        return (
            f"{column}: expected a type, got {reprlib.repr(what)}. Write `type: real`, or another."
        )
    if first["type"] == "union_tag_invalid":
        kind = str(what["type"])
        return f"{column}: expected a known type, got {kind!r}; {near(kind, KINDS)}"
    place = [str(part) for part in first["loc"][1:]]
    field = place[0] if place else "type"
    if first["type"] == "extra_forbidden":
        known = ["type", *KINDS[str(what["type"])].model_fields.keys() - {"type"}]
        return (
            f"{column}: expected a field of type {what['type']!r}, got {field!r}; "
            f"{near(field, known)}"
        )
    if first["type"] == "value_error":
        return f"{column}: expected {first['msg'].removeprefix('Value error, ')}"
    got = reprlib.repr(first["input"] if place else what.get(field))
    reason = (
        first["msg"]
        .removeprefix("Input should be ")
        .removeprefix("a valid ")
        .replace("tuple", "list")
    )
    return (
        f"{column}: expected {reason} in `{field}`, got {got}. Mend the value, or take "
        "the field out to have it inferred."
    )
