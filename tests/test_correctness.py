"""What a right answer is: labels, fields that say the same, texts that mention what they must."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.errors import Misuse
from tierwise.steps.correctness import (
    is_equivalent,
    mentions,
    rubric,
    same,
    same_fields,
)

ANYTHING = st.one_of(
    st.none(),
    st.text(),
    st.integers(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
)


def right(given: object, expected: object) -> bool:
    return same_fields("field")({"field": given}, {"field": expected})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Cascadia Trail Foods Inc", "Cascadia Trail Foods, Inc."),
        ("LUMEN VISION  OPTICS BV", "Lumen Vision Optics B.V."),
        ("RM 1,200.00", "1200"),
        ("9.000", "9.00"),
        ("1.234,50 €", "1234.5"),
        ("$180,000", "$180000"),
        ("2026-03-15", "March 15, 2026"),
        ("25-12-2018", "25/12/2018"),
        ("12/01/2019", "12-01-19"),
        ({"quote": "for two years", "value": "two years"}, "Two years"),
        ({"quote": None, "value": None}, None),
        ("", None),
        ("three (3) years", ["three years", "three (3) years"]),
        (["a", "B"], ["A", "b"]),
        ({"street": "Weir St.", "more": "x"}, {"street": "weir st"}),
        (9, "9.00"),
    ],
)
def test_these_say_the_same(given: object, expected: object) -> None:
    assert right(given, expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("two years", "three years"),
        ("1250", "12.50"),
        ("12.50 a month", "1250 a month"),
        ("12 50", "1250"),
        ("12", "-12"),
        ("EUR 12", "$12"),
        ("12", "$12"),
        ("7", "007"),
        ("2026-03-15", "2026-03-16"),
        ("20 December", "20 December 2026"),
        ("3 April 2026", "03/04/2026"),
        ("", "x"),
        (None, "None"),
        ("x", None),
        ("a", ["b", "c"]),
        (["a"], ["a", "b"]),
        ({"quote": "two years", "value": None}, "two years"),
    ],
)
def test_these_do_not(given: object, expected: object) -> None:
    """A wrong number, day, currency or missing value is wrong, however alike it looks."""
    assert not right(given, expected)


@given(ANYTHING, ANYTHING)
def test_every_value_says_the_same_as_itself_and_any_two_can_be_compared(
    one: object, other: object
) -> None:
    assert right(one, one)
    assert right(one, other) in (True, False)


def test_without_names_all_expected_fields_count() -> None:
    assert same_fields()({"a": 1, "b": 2, "c": 3}, {"a": "1", "b": "2"})
    assert not same_fields()({"a": 1}, {"a": "1", "b": "2"})
    assert same_fields("a")({"a": 1}, {"a": "1", "b": "2"})


def test_where_nothing_is_expected_nothing_is_right() -> None:
    """An example that forgot its answer must not count as passed."""
    assert not same_fields()({"a": 1}, {})


def test_a_label_is_right_whatever_its_case_and_spaces() -> None:
    assert same("label")({"label": " Billing"}, {"label": "billing"})
    assert not same("label")({"label": "billing"}, {"label": "delivery"})


def test_a_text_must_mention_all_and_nothing_forbidden() -> None:
    expected = {"must_mention": ["Friday"], "must_not": ["refund"]}
    assert mentions("reply")({"reply": "On FRIDAY we look into it."}, expected)
    assert not mentions("reply")({"reply": "We look into it."}, expected)
    assert not mentions("reply")({"reply": "A refund on Friday."}, expected)


def test_a_rubric_says_itself_only_what_needs_no_judge() -> None:
    polite = rubric("The reply is polite.", needs=mentions("reply"))
    assert polite.criteria == ("The reply is polite.",)
    assert polite({"reply": "On Friday."}, {"must_mention": ["Friday"]})
    assert not polite({"reply": "On Monday."}, {"must_mention": ["Friday"]})
    assert rubric("The reply is polite.")({}, {})


@pytest.mark.parametrize("criteria", [(), ("",), ("fine", " ")])
def test_a_rubric_without_criteria_is_misuse(criteria: tuple[str, ...]) -> None:
    with pytest.raises(Misuse, match="needs criteria"):
        rubric(*criteria)


def test_a_comparison_of_no_field_is_misuse() -> None:
    with pytest.raises(Misuse) as caught:
        same()
    assert str(caught.value) == (
        "same() compares no field; name those of a right answer: same('label')"
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("٢٤٠", 240),
        ("१२", "12"),
        ("１，２４０．５０", "1240.5"),
        ("١٬٢٤٠٫٥٠", "1240.50"),
        ("\u22125", "-5"),
        ("２０２６年５月１５日", "May 15, 2026"),
        ("2026年5月12日", "2026-05-12"),
        ("15. Mai 2026", "2026-05-15"),
        ("15 décembre 2026", "2026-12-15"),
        ("15 de mayo de 2026", "2026-05-15"),
    ],
)
def test_numbers_and_dates_are_the_same_in_other_scripts(
    given: str, expected: str | float
) -> None:
    assert is_equivalent(given, expected)
    assert not is_equivalent(given, "2026-05-16")
    assert not is_equivalent(given, 241)


def test_a_number_to_mention_may_have_other_digits() -> None:
    right = mentions("text")
    assert right({"text": "المبلغ ٢٤٠ دينارا"}, {"must_mention": ["240"]})
    assert not right({"text": "المبلغ ٢٤١ دينارا"}, {"must_mention": ["240"]})
