"""`--where` reads what it writes, and points at what it cannot read."""

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from reversal.cli.where import ConditionError, given, parse
from reversal.data.conditions import Between, Equal, Every, Not, OneOf


def shown(value):
    """Write a value in the language."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return repr(value).lower()


def written(column, condition):
    """Write a condition in the language."""
    if isinstance(condition, Not) and isinstance(condition.condition, Equal):
        return f"`{column}`!={shown(condition.condition.value)}"
    if isinstance(condition, Not):
        return written(column, condition.condition).replace("` in", "` not in", 1)
    if isinstance(condition, Equal):
        return f"`{column}` == {shown(condition.value)}"
    if isinstance(condition, OneOf):
        return f"`{column}` in ({', '.join(map(shown, condition.values))})"
    low, high = ("" if end is None else shown(end) for end in (condition.low, condition.high))
    if condition.excludes_low:
        return f"`{column}` > {low}"
    return f"`{column}`<{high}" if condition.excludes_high else f"`{column}` in {low}..{high}"


NAMES = st.text(st.characters(exclude_characters="`", exclude_categories=["Cs"]), min_size=1)
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.one_of(st.booleans(), NUMBERS, st.text(st.characters(exclude_categories=["Cs"])))
PLAIN = st.one_of(
    VALUES.map(Equal),
    st.lists(VALUES, min_size=1, max_size=3).map(lambda values: OneOf(tuple(values))),
    st.lists(NUMBERS, min_size=2, max_size=2).map(lambda ends: Between(*sorted(ends))),
    NUMBERS.map(lambda low: Between(low, None)),
    NUMBERS.map(lambda high: Between(None, high)),
    NUMBERS.map(lambda low: Between(low, None, excludes_low=True)),
    NUMBERS.map(lambda high: Between(None, high, excludes_high=True)),
)
CONDITIONS = st.one_of(
    PLAIN,
    VALUES.map(lambda value: Not(Equal(value))),
    st.lists(VALUES, min_size=1, max_size=3).map(lambda values: Not(OneOf(tuple(values)))),
)


@drawn(st.dictionaries(NAMES, CONDITIONS, min_size=1, max_size=4))
def test_what_is_written_is_read(conditions):
    text = " and ".join(written(name, each) for name, each in conditions.items())
    assert parse(text) == conditions


@drawn(st.text(st.sampled_from("ab=<>!'\"` andiot12.,(){}-\\\n"), max_size=30))
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


def test_every_form_of_a_condition_is_read():
    assert parse("age in 65..80") == {"age": Between(65, 80)}
    assert parse("age in 65.5..80.25 and b in .5...75") == {
        "age": Between(65.5, 80.25),
        "b": Between(0.5, 0.75),
    }
    assert parse("age in -5..-1") == {"age": Between(-5, -1)}
    assert parse("age in 65.. and b in ..80") == {"age": Between(65), "b": Between(None, 80)}
    assert parse("job in {'cook', 'smith',}") == {"job": OneOf(("cook", "smith"))}
    assert parse("job not in ['cook']") == {"job": Not(OneOf(("cook",)))}
    assert parse("born in '1970-01-01'..'1979-12-31'") == {
        "born": Between("1970-01-01", "1979-12-31")
    }
    assert parse("hours.per.week >= 40 and not_in != 'a'") == {
        "hours.per.week": Between(40),
        "not_in": Not(Equal("a")),
    }
    assert parse("age > 20 AND age <= 30 and age != 25") == {
        "age": Every((Between(20, excludes_low=True), Between(None, 30), Not(Equal(25))))
    }


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", 0, "Expected the name of a column, got nothing more"),
        ("species", 7, "or `in` after the name of a column, got nothing more"),
        ("species = 'Adelie'", 8, "got `=`. Write `column == value`"),
        ("species <> 'Adelie'", 8, "got `<>`. Write `column == value`"),
        ("species is missing", 8, "is not modelled"),
        ("species == Adelie", 11, "got `Adelie`. Text stands in quotes: 'Adelie'"),
        ("species == 'Adelie", 11, "Close the quotes"),
        ("species == and sex == 'male'", 11, "Write a value after the comparison"),
        ("species == 'Adelie' sex == 'male'", 20, "Join conditions by `and`"),
        ("species == 'Adelie' or sex == 'male'", 20, "Join conditions by `and`"),
        ("a == 1 and a == 2", 11, "Expected another column, got `a` again"),
        ("a in 1..3 and a == 2", 14, "`==` fixes a column"),
        ("a == 1 and", 10, "Expected the name of a column, got nothing more"),
        ("year == 2007b", 8, "Text stands in quotes: '2007b'"),
        ("a\n== ?", 5, "got `?`"),
        ("age in 80..65", 7, "got 80..65. An empty range holds nothing"),
        ("age in ..", 7, "Write at least one end"),
        ("age in 65", 9, "Expected `..`, got nothing more"),
        ("age in 65..'b'", 7, "two ends of one kind"),
        ("age in 65..b", 11, "Text stands in quotes: 'b'"),
        ("job in ()", 8, "An empty set holds nothing"),
        ("job in ('cook' 'smith')", 15, "Part values by commas"),
        ("job in ('cook'", 14, "Expected `,` or `)`, got nothing more"),
        ("job in (", 8, "Write ')' after the last value"),
        ("job not 'cook'", 8, "Expected `in` after `not`"),
        ("job in cook", 7, "Text stands in quotes: 'cook'"),
        ("age < and b == 1", 6, "Write a value after the comparison"),
    ],
)
def test_what_cannot_be_read_is_shown_at_its_place(text, place, said):
    with pytest.raises(ConditionError) as caught:
        parse(text)
    *_, line, caret = str(caught.value).split("\n")
    assert said in str(caught.value)
    assert line == "  " + text.replace("\n", " ")
    assert caret == "  " + " " * place + "^"
