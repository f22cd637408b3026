"""YAML becomes validated models; whatever is wrong names file and line."""

from __future__ import annotations

import datetime
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from tierwise.errors import ConfigError
from tierwise.text.settings import Settings
from tierwise.text.yaml import YamlData, parse_yaml, read_yaml


class Inner(Settings):
    amount: Decimal
    factor: Annotated[float, Field(gt=0)] = 1.0
    count: int = 0
    day: datetime.date | None = None


class Outer(Settings):
    version: Literal[1]
    inner: Inner | Literal["none"] = "none"
    items: tuple[Inner, ...] = ()
    named: dict[str, Inner] = {}
    words: Annotated[tuple[Literal["none"], ...], Field(min_length=1)] = ("none",)
    note: str | None = None
    free: Any = None


def parse(text: str) -> YamlData:
    return parse_yaml(text, "file.yaml")


def said(text: str) -> str:
    """What the error says when this is read as an Outer."""
    with pytest.raises(ConfigError) as caught:
        parse(text).validate(Outer)
    return str(caught.value)


def test_plain_values_survive() -> None:
    text = "i: 3\nh: 0x1f\nf: 20.5\nb: true\nn: ~\nw: yes\nd: 2026-11-22\nt: 2026-11-22T10:30:00Z\nl: [1, {x: 2}]\n"
    data = parse(text).data
    day = datetime.date(2026, 11, 22)
    moment = datetime.datetime(2026, 11, 22, 10, 30, tzinfo=datetime.UTC)
    assert list(data.values()) == [
        3,
        31,
        20.5,
        True,
        None,
        "yes",
        day,
        moment,
        [1, {"x": 2}],
    ]
    kinds = [type(data[name]) for name in "ihfbnwl"]
    assert kinds == [int, int, float, bool, type(None), str, list]
    assert type(data["l"][1]) is dict


@given(st.decimals(min_value=0, max_value=10_000, places=6))
def test_a_decimal_keeps_its_digits(amount: Decimal) -> None:
    """Up to 15 digits, more than a price has; no 0.1 becomes 0.1000000000000000055."""
    assert parse(f"version: 1\ninner: {{amount: {amount}}}").validate(
        Outer
    ).inner == Inner(amount=amount)


def test_float_settings_and_free_values_stay_numbers() -> None:
    outer = parse(
        "version: 1\ninner: {amount: 1, factor: 20.5}\nfree: {temperature: 0.2}"
    ).validate(Outer)
    assert isinstance(outer.inner, Inner)
    assert outer.inner.factor == 20.5
    assert outer.free == {"temperature": 0.2}


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
def test_no_setting_is_infinite(number: str) -> None:
    assert "file.yaml:3: inner → factor: Input should be" in said(
        f"version: 1\ninner:\n  factor: {number}\n  amount: 1"
    )


def test_a_date_with_a_time_is_no_date() -> None:
    assert said("version: 1\ninner: {amount: 1, day: 2026-11-22T10:00:00Z}").startswith(
        "file.yaml:2: inner → day"
    )


def test_a_misspelt_setting_names_its_line_and_what_was_meant() -> None:
    text = "version: 1\nitems:\n  - amount: 1\n  - amount: 2\n    facter: 2.0\n"
    assert (
        said(text)
        == "file.yaml:5: items → 1 → facter: no setting named 'facter'; did you mean 'factor'?"
    )


def test_a_misspelt_setting_is_told_before_the_one_that_is_missing_for_it() -> None:
    assert said("version: 1\nnamed:\n  first:\n    amuont: 1\n") == (
        "file.yaml:4: named → first → amuont: no setting named 'amuont'; did you mean 'amount'? (and 1 more)"
    )


def test_a_misspelt_setting_inside_one_of_two_kinds_is_found_too() -> None:
    """`inner` is an object or the word none; the error speaks of the object that was meant."""
    assert said("version: 1\ninner:\n  amount: 1\n  cuont: 2\n").startswith(
        "file.yaml:4: inner → cuont: no setting named 'cuont'; did you mean 'count'?"
    )


def test_a_wrong_word_says_what_is_allowed() -> None:
    assert said("version: 1\ninner: nome\n").startswith(
        "file.yaml:2: inner: Input should be 'none' (found 'nome')"
    )


def test_a_missing_setting_points_to_where_it_belongs() -> None:
    assert said("version: 1\nitems:\n  - count: 1\n").startswith(
        "file.yaml:3: items → 0 → amount: Field required"
    )


def test_an_object_that_is_none_says_what_it_expects() -> None:
    assert said("version: 1\nitems:\n  - 7\n") == (
        "file.yaml:3: items → 0: expects settings (`name: value`), such as amount, factor, count"
    )
    assert said("- 1\n- 2\n").startswith("file.yaml:1: expects settings")


def test_a_list_is_not_too_short_for_its_faulty_items() -> None:
    _, faults = parse("version: 1\nwords: [nome]\n").fitted(Outer)
    assert len(faults) == 1
    _, faults = parse("version: 1\nwords: []\n").fitted(Outer)
    assert len(faults) == 1


def test_a_wrong_value_is_shown() -> None:
    assert said("version: 1\ninner: {amount: many}").endswith(
        "(found 'many') (and 1 more)"
    )


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"empty\.yaml:1: the file is empty"):
        read_yaml(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        read_yaml(tmp_path / "none.yaml")


def test_a_folder_and_bytes_that_are_no_text_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    for path in (tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_yaml(path)


def test_what_is_not_yaml_names_the_line() -> None:
    with pytest.raises(ConfigError, match=r"^file\.yaml:3: not valid YAML: "):
        parse("a: 1\nb: 2\n c: {\n")


def test_a_key_given_twice_names_the_line() -> None:
    with pytest.raises(
        ConfigError, match=r'^file\.yaml:2: not valid YAML: found duplicate key "a"'
    ):
        parse("a: 1\na: 2\n")


@pytest.mark.parametrize(
    "text", ["day: 2024-13-45", "!!int x", "&a [*a]", "[" * 700, "a: \x00"]
)
def test_odd_text_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse(text)


@given(
    st.text()
    | st.lists(
        st.sampled_from([*"a: \n-{}[]'\"&*!|>%@#~?.1", "!!", "<<", "---", "2024-99-99"])
    ).map("".join)
)
def test_any_text_is_data_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):  # any other error fails this test
        parse(text)


def test_lines_count_from_where_the_text_stands() -> None:
    """Front matter starts on its file's second line."""
    source = parse_yaml(
        "version: 1\nitems:\n  - amount: x\n", "prompt.md", first_line=2
    )
    assert [
        source.line(()),
        source.line(("version",)),
        source.line(("items", 0, "amount")),
    ] == [
        2,
        2,
        4,
    ]
    assert source.line(("items", 0, "nowhere")) == 4
    assert str(source.error("wrong", ("items",))) == "prompt.md:3: wrong"


def test_a_merged_mapping_is_read_as_one() -> None:
    text = (
        "version: 1\nnamed:\n  a: &a {amount: 1, count: 2}\n  b: {<<: *a, count: 3}\n"
    )
    assert parse(text).validate(Outer).named["b"] == Inner(amount=Decimal(1), count=3)


SPELLINGS = (
    *(
        "010",
        "0x1F",
        "0o17",
        "1_000",
        "1:30",
        "+1",
        "1e3",
        "1.",
        ".inf",
        ".nan",
        "9" * 400,
        "yes",
        "True",
        "~",
        "null",
    ),
    *(
        "2026-11-01",
        "'q''r'",
        '"d\\n\\u00e9"',
        "a b #c",
        "http://x:1/y",
        "[a, 'b: c', {d: 1}]",
        "{a: , b: 2}",
    ),
    *(
        "|\n  x\n\n  y",
        ">-\n  x\n  y",
        "[]",
        "{}",
        '""',
        "-1",
        "- 1",
        "a: b",
        "\t",
        "é☃",
        "@x",
        "`x",
        "%x",
        "? x",
    ),
)
KEYS = ("a", "b", "'c d'", "1", "1.50", "true", "~", "é")


@given(
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(SPELLINGS)),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_the_quick_way_reads_what_the_careful_way_reads(
    pairs: list[tuple[str, str]], listed: bool
) -> None:
    """The same values on the same lines, errors included; a mark in a comment makes it read with care."""
    text = "".join(
        f"{'- ' if listed else ''}{key}: {spelling}\n" for key, spelling in pairs
    )
    assert _read(text) == _read(f"{text}# <<\n")


def _read(text: str) -> Any:
    try:
        found = parse(text)
    except ConfigError as error:
        return str(error)
    places = found.data if isinstance(found.data, dict) else range(len(found.data))
    return repr(found.data), [found.line((place,)) for place in places]
