"""Quotations lead back to their words: what the check accepts has an exact span, in any script."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import regex
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from rapidfuzz.fuzz import partial_ratio

from tierwise.records import Document
from tierwise.steps.checks import (
    SAME_WORDS,
    evidence_is_quoted,
    fields_are_quoted,
    squeezed,
)
from tierwise.steps.places import places_of
from tierwise.steps.quotations import QuotableText, find_quotation

RECEIPTS = Path(__file__).parents[1] / "../shared/data/sroie/receipts.jsonl"


class Evidence(BaseModel):
    evidence: str = ""


class Quoted(BaseModel):
    value: str
    quote: str


class Receipt(BaseModel):
    company: Quoted | None = None
    date: Quoted | None = None
    address: Quoted | None = None
    total: Quoted | None = None


# Words of eight scripts, and emoji of several characters.
SCRIPTS = {
    "latin": (
        "Straße café naïve Ångström Łódź ﬁnance ŉ Ｆｕｌｌ ½ İstanbul Dziękuję "
        "e\u0301te\u0301 Größe 2,140.00 №5 ①② x² co-op"
    ),
    "cyrillic": "Договор счёт №12 Київ й и\u0306 поставки 1 250,00 ёлка їжак съезд",
    "greek": "Σύμβαση τιμολόγιο ΑΘΗΝΑ ὀδός ᾳ Ὀδυσσεύς ΐ ποσό 12,50 ς",
    "arabic": "فاتورة المبلغ الإجمالي لا ﷲ ﻻ مُحَمَّد ١٢٣٫٤٥ قیمت",
    "hebrew": "חשבונית סכום שָׁלוֹם בְּרֵאשִׁית שנים־עשר 45.00 ﬡ שׁ",
    "devanagari": "रसीद कुल राशि क्षत्रिय हिन्दी ₹१२३ ज़ श्री कर्ता ड़",
    "japanese": "領収書 合計 ガギグ ｶﾞｷﾞ ㍿ 令和６年 ｱｲｳ か\u3099 辻󠄀 神 （税込）",
    "thai": "ใบเสร็จ รวมทั้งสิ้น น้ำ ๑๒๓ บาท กำ ที่อยู่",
    "hangul": "영수증 합계 \u1100\u1161\u11a8 각 ㄱ ﾡ 서울 12,000원 한국",
    "emoji": "👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽 ❤️ 1️⃣ 🏳️‍🌈 ok 👨🏿‍💻",
}
SPACES = [" ", "\n", "  ", "\r\n", "\t", "\u00a0", "\u3000", " \n\n ", "\u2028", ""]
INVISIBLE = ["\u00ad", "\u200b", "\u200d", "\u2060", "\ufeff"]


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, str]:
    """Return a text in one script or two, and a part of it."""
    names = draw(st.lists(st.sampled_from(sorted(SCRIPTS)), min_size=1, max_size=2))
    words = [word for name in names for word in SCRIPTS[name].split()]
    chosen = draw(st.lists(st.sampled_from(words), min_size=1, max_size=25))
    text = ""
    for word in chosen:
        text += word + draw(st.sampled_from(SPACES))
    start = draw(st.integers(0, len(text) - 1))
    end = draw(st.integers(start + 1, len(text)))
    return text, text[start:end]


@st.composite
def copies(draw: st.DrawFn) -> tuple[str, str]:
    """Return a text and a damaged copy of a part of it."""
    text, quote = draw(documents())
    kind = draw(st.sampled_from(["upper", "lower", "nfd", "nfkc", "spaces", "lost"]))
    if kind == "upper":
        quote = quote.upper()
    elif kind == "lower":
        quote = quote.lower()
    elif kind == "nfd":
        quote = unicodedata.normalize("NFD", quote)
    elif kind == "nfkc":
        quote = unicodedata.normalize("NFKC", quote)
    elif kind == "spaces":
        separator = draw(st.sampled_from([" ", "\n", "\u00ad", "\u200b", ""]))
        quote = separator.join(quote.split())
    else:
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(INVISIBLE)) + text[place:]
    return text, quote


def is_accepted(quote: str, text: str) -> bool:
    document = Document(id="d", text=text)
    verdict = evidence_is_quoted(Evidence(evidence=quote), document, {})
    return verdict.passed is True


def clusters(text: str) -> set[int]:
    """Return the places between the grapheme clusters of a text."""
    return {0, *(match.end() for match in regex.finditer(r"\X", text))}


@given(copies())
@example(("Der Weg zur STRASSE 5", "Straße"))
@example(("eine Straße 5", "STRASSE"))
@example(("die ﬁnance", "f"))
@example(("a\u0301b", "\u00e1"))
@example(("x ｶﾞ y", "ガ"))
def test_what_the_check_accepts_has_a_place_in_every_script(
    copy: tuple[str, str],
) -> None:
    text, quote = copy
    span = find_quotation(quote, text)
    assert (span is not None) == is_accepted(quote, text)
    assume(span is not None)
    assert span is not None
    start, end = span
    found = squeezed(text[start:end])
    wanted = squeezed(quote).strip("\"'.")
    is_exact = wanted in squeezed(text)
    assert wanted in found if is_exact else partial_ratio(wanted, found) >= SAME_WORDS
    assert {start, end} <= clusters(text)
    assert not text[start].isspace()
    # No more than the clusters at its ends.
    inner = squeezed(text[start + 64 : end - 64])
    assert inner in squeezed(quote) or len(inner) < 128


@given(documents())
def test_a_place_is_as_short_as_whole_clusters_allow(document: tuple[str, str]) -> None:
    text, quote = document
    span = find_quotation(quote, text)
    assume(span is not None)
    assert span is not None
    start, end = span
    wanted = squeezed(quote)
    if wanted not in squeezed(text[start:end]):
        wanted = wanted.strip("\"'.")
    places = sorted(place for place in clusters(text) if start <= place <= end)
    # One cluster less at either end, and a part of the quotation is missing.
    assert wanted not in squeezed(text[places[1] : end])
    assert wanted not in squeezed(text[start : places[-2]])


@given(st.text())
def test_a_text_squeezed_in_blocks_is_the_squeezed_text(text: str) -> None:
    quotable = QuotableText(text * 40)
    assert quotable.squeezed == squeezed(text * 40)


@given(
    st.sampled_from(sorted(SCRIPTS)),
    st.integers(0, 10_000),
    st.sampled_from(["lost", "doubled", "wrong"]),
)
def test_a_long_quotation_with_a_typo_leads_to_its_words(
    script: str, seed: int, typo: str
) -> None:
    letters = "".join(c for c in SCRIPTS[script] if c.isalpha() or c.isspace())
    before = "Rechnung von heute: "
    sentence = f"{letters} {letters}".strip()
    text = f"{before}{sentence}\n{'.' * 30}\nDanke"
    place = seed % len(sentence)
    damaged = {
        "lost": sentence[:place] + sentence[place + 1 :],
        "doubled": sentence[: place + 1] + sentence[place:],
        "wrong": sentence[:place] + "x" + sentence[place + 1 :],
    }[typo]
    span = find_quotation(damaged, text)
    assert (span is not None) == is_accepted(damaged, text)
    assume(span is not None)
    assert span is not None
    start, end = span
    assert abs(start - len(before)) <= 4
    assert abs(end - len(before) - len(sentence)) <= 4


CASES = [
    ("Total 140.00 and 40.00", "40.00", "40.00"),  # not within another number
    ("in 2012, of 12 months", "12", "12"),
    ("1,200 or 200", "200", "200"),
    ("einzeln, ein", "ein", "ein"),
    ("合計合計", "計", "計"),
    ("they co-\u00adoper\u00adate", "cooperate", None),
    ("they co\u00adoper\u00adate!", "cooperate", "co\u00adoper\u00adate"),
    ("\u201cPay \u2013 now\u201d", '"Pay - now."', "Pay \u2013 now"),
    ("A family 👩‍👩‍👧 here", "👩👩👧", "👩‍👩‍👧"),
    ("flags 🇩🇪🇫🇷", "🇫🇷", "🇫🇷"),
    ("x\u0301\u0302y", "x\u0301", "x\u0301\u0302"),
    ("no word", "", None),
    ("", "word", None),
    ("", "", None),
    ('a "..." b', '"..."', None),
    ('She said "yes." Then', '"Yes."', '"yes."'),
    ("She said yes, then", '"Yes."', "yes"),
]


@pytest.mark.parametrize(("text", "quote", "words"), CASES)
def test_a_place_is_that_of_the_whole_words(
    text: str, quote: str, words: str | None
) -> None:
    span = find_quotation(quote, text)
    found = None if span is None else text[slice(*span)]
    assert found == words
    if quote == "40.00":
        assert span == (17, 22)


def test_occurrences_come_in_the_order_of_the_text() -> None:
    text = QuotableText("5.00 tea, 15.00 milk, 5.00 bread")
    assert list(text.occurrences("5.00")) == [(0, 4), (22, 26)]


def test_other_numbers_are_no_typo() -> None:
    text = "The supplier delivers 2,140 boxes of paper every month."
    assert find_quotation("The supplier delivers 2,150 boxes of paper", text) is None
    assert find_quotation("The suplier delivers 2,140 boxes of paper", text) == (0, 42)


# ---- real receipts ------------------------------------------------------------------------------


def receipts(count: int) -> Iterator[tuple[str, dict[str, str]]]:
    with RECEIPTS.open(encoding="utf-8") as lines:
        for line, _ in zip(lines, range(count), strict=False):
            receipt = json.loads(line)
            yield receipt["text"], receipt["gold"]


@pytest.mark.skipif(not RECEIPTS.exists(), reason="needs shared/data/sroie")
def test_all_quotations_of_150_receipts_lead_back_to_their_words() -> None:
    """The right answers as quotations, copied well or badly, and every line of every receipt."""
    accepted = 0
    lines = 0
    for text, gold in receipts(150):
        document = Document(id="r", text=text)
        for copied in (str, str.casefold, lambda value: " ".join(value.split())):
            fields = {
                name: {"value": value, "quote": copied(value)}
                for name, value in gold.items()
                if value and is_accepted(value, text)
            }
            output = Receipt.model_validate(fields)
            assert fields_are_quoted(output, document, {}).passed
            places = places_of(output.model_dump(mode="json"), document)
            assert {place.path for place in places} == set(fields)
            for place in places:
                found = squeezed(text[place.start : place.end])
                wanted = squeezed(gold[place.path]).strip("\"'.")
                is_exact = wanted in squeezed(text)
                assert (
                    wanted in found if is_exact else partial_ratio(wanted, found) > 90
                )
                accepted += 1
        quotable = QuotableText(text)
        for line in text.splitlines():
            spans = list(quotable.occurrences(line.upper()))
            words = {squeezed(text[start:end]) for start, end in spans}
            lines += bool(squeezed(line).strip("\"'."))
            wanted = squeezed(line)
            assert words <= {wanted, wanted.strip("\"'.")}
            assert bool(words) == is_accepted(line.upper(), text)
    assert accepted > 3 * 400
    assert lines > 5_000
