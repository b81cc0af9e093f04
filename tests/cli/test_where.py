"""`--where` reads what it writes, and points at what it cannot read."""

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from reversal.cli.where import ConditionError, Equal, given, parse


def written(condition):
    """Write a condition in the language."""
    value = condition.value
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"`{condition.column}` == '{escaped}'"
    return f"`{condition.column}`=={repr(value).lower()}"


NAMES = st.text(st.characters(exclude_characters="`", exclude_categories=["Cs"]), min_size=1)
VALUES = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@drawn(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
def test_what_is_written_is_read(conditions):
    equalities = tuple(Equal(name, value) for name, value in conditions.items())
    assert parse(" and ".join(map(written, equalities))) == equalities


@drawn(st.text(st.sampled_from("ab=='\"` and12.!\\\n"), max_size=30))
def test_any_text_is_read_or_refused_at_a_place_within_it(text):
    try:
        assert parse(text)
    except ConditionError as error:
        *_, line, caret = str(error).split("\n")
        assert 2 <= caret.index("^") <= len(line)


def test_numbers_and_words_have_their_types():
    read = given("a == 1 and b==-2.5e3 and c == TRUE".replace("TRUE", "True") + " and d == 'é'")
    assert read == {"a": 1, "b": -2500.0, "c": True, "d": "é"}
    assert [type(value) for value in read.values()] == [int, float, bool, str]
    assert given(None) == {}


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", 0, "Expected the name of a column, got nothing more"),
        ("species", 7, "Expected `==` after the name of a column, got nothing more"),
        ("species = 'Adelie'", 8, "got `=`. Write `column == value`"),
        ("species != 'Adelie'", 8, "got `!=`. Write `column == value`"),
        ("species == Adelie", 11, "got `Adelie`. Text stands in quotes: 'Adelie'"),
        ("species == 'Adelie", 11, "Close the quotes"),
        ("species == and sex == 'male'", 11, "Write a value after `==`"),
        ("species == 'Adelie' sex == 'male'", 20, "Join conditions by `and`"),
        ("species == 'Adelie' or sex == 'male'", 20, "Join conditions by `and`"),
        ("a == 1 and a == 2", 11, "Expected another column, got `a` again"),
        ("a == 1 and", 10, "Expected the name of a column, got nothing more"),
        ("year == 2007b", 8, "Text stands in quotes: '2007b'"),
        ("a\n== ?", 5, "got `?`"),
    ],
)
def test_what_cannot_be_read_is_shown_at_its_place(text, place, said):
    with pytest.raises(ConditionError) as caught:
        parse(text)
    *_, line, caret = str(caught.value).split("\n")
    assert said in str(caught.value)
    assert line == "  " + text.replace("\n", " ")
    assert caret == "  " + " " * place + "^"
