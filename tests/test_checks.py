"""Checks: each says what an output must hold, passes what does and says why the rest does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel

from tierwise.records import Document, Verdict
from tierwise.steps.checks import (
    Check,
    at_most_words,
    check,
    evidence_is_quoted,
    fields_are_quoted,
    label_is_allowed,
    no_placeholders,
    numbers_are_in_the_document,
    same_language,
    squeezed,
)


class Labelled(BaseModel):
    label: str = ""
    evidence: str | None = ""


class Written(BaseModel):
    text: str
    more: list[str] = []


class Quoted(BaseModel):
    quote: str | None = None
    value: str | float | bool | None = None


class Terms(BaseModel):
    price: Quoted = Quoted()
    parties: list[Quoted] = []
    note: str = ""


LETTER = (
    "Dear team,\n\nI was charged  49.99 euros twice on 3 May 2026 \u2013 that\u2019s wrong. "
    "\u201cPlease pay it back,\u201d says my wife.\nThe co\u2011op in K\u00f6ln pays 2,140 pounds a month."
)
DOCUMENT = Document(id="d", text=LETTER, language="en")


def verdict(
    wanted: Check, output: BaseModel, document: Document = DOCUMENT, **parameters: Any
) -> Verdict:
    return wanted(output, document, parameters)


def evidence(words: str | None) -> Verdict:
    return verdict(evidence_is_quoted, Labelled(evidence=words))


def extracted(**fields: Any) -> Verdict:
    return verdict(fields_are_quoted, Terms.model_validate(fields))


def price(value: Any, quote: str | None) -> Verdict:
    return extracted(price={"value": value, "quote": quote})


# ---- what a check is ----------------------------------------------------------------------------


def test_a_check_is_a_function_that_says_why_an_output_fails() -> None:
    @check("short")
    def is_short(output: BaseModel, document: Document, *, most: int) -> str | None:
        return None if len(document.text) <= most else f"longer than {most}"

    assert (is_short.name, is_short.parameters) == ("short", ("most",))
    assert is_short(Labelled(), DOCUMENT, {"most": 999, "other": 1}) == Verdict(
        "short", True
    )
    assert is_short(Labelled(), DOCUMENT, {"most": 1}) == Verdict(
        "short", False, "longer than 1"
    )


def test_a_check_without_its_parameter_is_unscored_not_failed() -> None:
    found = verdict(label_is_allowed, Labelled(label="a"))
    assert found == Verdict("label", None, "not scored: no `labels` was given")


# ---- labels -------------------------------------------------------------------------------------


def test_a_label_is_one_of_those_asked_for() -> None:
    assert verdict(
        label_is_allowed, Labelled(label="billing"), labels=["billing", "praise"]
    ).passed
    found = verdict(
        label_is_allowed, Labelled(label="Billing"), labels=["billing", "praise"]
    )
    assert found == Verdict("label", False, "'Billing' is not one of billing, praise")


def test_an_output_without_a_label_fails() -> None:
    assert (
        verdict(label_is_allowed, Written(text="x"), labels=["billing"]).passed is False
    )


# ---- evidence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "I was charged  49.99 euros twice",
        "i was CHARGED 49.99\neuros twice",
        '"I was charged 49.99 euros twice"',
        "\u201cI was charged 49.99 euros twice\u201d",
        "I was charged 49.99 euros twice...",
        "\u2026 I was charged 49.99 euros twice \u2026",
        "that's wrong",
        "that\u2019s wrong.",
        "3 May 2026 - that's",
        "3 May 2026 \u2014 that`s",
        '"Please pay it back," says my wife',
        "\u00abPlease pay it back,\u00bb says",
        "co-op",
        "co\u2010op in K\u00f6ln",
        "K\u006f\u0308ln",
        "charged\u00a049.99",
        "char\u00adged",
        "\ufeffcharged",
        "\uff34\uff48\uff45 co-op",
    ],
)
def test_evidence_may_differ_in_white_space_case_quotes_and_dashes(words: str) -> None:
    assert evidence(words) == Verdict("grounding", True)


@pytest.mark.parametrize(
    "words",
    [
        "I was charged three times",
        "charged 49.95 euros",
        "I was charged 49.95 euros twice",
        "I was charged 49.99 euros twice on 4 May 2026",
        "The co-op in K\u00f6ln pays 2,440 pounds a month",
        "the customer complains about a double charge",
        "charged twice",
        LETTER + " and more that is not there",
    ],
)
def test_invented_evidence_fails_and_is_shown(words: str) -> None:
    found = evidence(words)
    assert found.passed is False
    assert (
        found.reason
        == f"`evidence` quotes words that are not in the document: {words[:80]!r}"
    )


@pytest.mark.parametrize(
    "words",
    [
        "",
        None,
        "  ",
        "...",
        "\u2026",
        '""',
        "'.'",
        "\u201c \u201d",
        "\u200b",
        "\ufeff.",
    ],
)
def test_evidence_of_nothing_fails(words: str | None) -> None:
    assert evidence(words) == Verdict("grounding", False, "`evidence` quotes nothing")


def test_a_long_quotation_may_hold_a_slip_in_copying() -> None:
    assert evidence("I was chargd 49.99 euros twice on 3 May 2026").passed
    assert evidence("chargd").passed is False


LETTERS = st.characters(max_codepoint=0x2FF) | st.sampled_from(
    "\u201c\u201d\u2019\u2013\u2014\u2026\u200b\ufb01\u03a3"
)


@given(st.text(LETTERS, min_size=1), st.data())
def test_what_is_copied_is_always_found(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    words = text[start : data.draw(st.integers(start + 1, len(text)))]
    assume(squeezed(words).strip("\"'."))
    assert verdict(
        evidence_is_quoted, Labelled(evidence=words), Document(id="d", text=text)
    ).passed


@given(st.text())
def test_comparing_twice_changes_nothing_and_white_space_never_counts(
    text: str,
) -> None:
    assert squeezed(f" {text}\n") == squeezed(text)
    assert not any(letter.isspace() for letter in squeezed(text))


# ---- extraction ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "quote"),
    [
        ("49.99 euros", "I was charged 49.99 euros twice"),
        ("49.99 EUROS", "charged  49.99 euros"),
        ("2,140 pounds", "pays 2,140 pounds a month"),
        ("2140 pounds", "pays 2,140 pounds a month"),
        ("3 May 2026", "3 May 2026"),
        ("The coop in K\u00f6ln", "The co-op in K\u00f6ln pays"),
        (49.99, "49.99 euros"),
    ],
)
def test_a_value_that_stands_in_its_quotation_passes(value: Any, quote: str) -> None:
    assert price(value, quote) == Verdict("grounding", True)


@pytest.mark.parametrize(
    ("value", "quote", "reason"),
    [
        ("49.99 euros", None, "`price` has a value but no quotation"),
        ("49.99 euros", "", "`price` has a value but no quotation"),
        (0.0, None, "`price` has a value but no quotation"),
        (False, None, "`price` has a value but no quotation"),
        ("49.99 euros", "   ", "`price` quotes nothing"),
        (
            "50 euros",
            "charged 50 euros",
            "`price` quotes words that are not in the document: 'charged 50 euros'",
        ),
        (
            "50 euros",
            "charged 49.99 euros",
            "`price`: the quotation does not hold the value '50 euros'",
        ),
        (
            "49.95 euros",
            "charged 49.99 euros",
            "`price`: the quotation does not hold the value '49.95 euros'",
        ),
        (
            "4 May 2026",
            "on 3 May 2026",
            "`price`: the quotation does not hold the value '4 May 2026'",
        ),
        (
            "13 May 2026",
            "on 3 May 2026",
            "`price`: the quotation does not hold the value '13 May 2026'",
        ),
        (
            "the wife",
            "3 May 2026",
            "`price`: the quotation does not hold the value 'the wife'",
        ),
        (
            "2,440 pounds",
            "The co-op in K\u00f6ln pays 2,440 pounds a month",
            "`price` quotes words that are not in the",
        ),
    ],
)
def test_a_value_that_nothing_states_fails(
    value: Any, quote: str | None, reason: str
) -> None:
    found = price(value, quote)
    assert found.passed is False
    assert found.reason.startswith(reason)


def test_a_scrap_of_a_quotation_does_not_hold_a_long_value() -> None:
    """One letter that both have is no proof."""
    for scrap in ("e", "euros", "49"):
        assert price("a refund of 49 euros and an apology", scrap).passed is False


@pytest.mark.parametrize("quote", [None, "", "anything at all"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_field_without_a_value_is_fine(value: Any, quote: str | None) -> None:
    assert price(value, quote).passed


def test_fields_in_lists_are_checked_and_named() -> None:
    good = {"value": "my wife", "quote": "says my wife"}
    assert extracted(parties=[good, good], note="free text").passed
    found = extracted(parties=[good, {"value": "my cat", "quote": "says my cat"}])
    assert found.reason.startswith(
        "`parties[2]` quotes words that are not in the document"
    )


# ---- placeholders -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Yours, [Your Name]",
        "Dear {{ name }}",
        "Dear {name}",
        "<Company Name> thanks you",
    ],
)
def test_a_placeholder_that_was_left_fails(text: str) -> None:
    for output in (Written(text=text), Written(text="fine", more=["fine", text])):
        assert verdict(no_placeholders, output).reason.startswith(
            "left a placeholder: "
        )


@pytest.mark.parametrize(
    "text", ["Dear Ms Osei, all is well.", "5 < 6", "a [1] b", "i <3 you", "{}"]
)
def test_ordinary_text_is_no_placeholder(text: str) -> None:
    assert verdict(no_placeholders, Written(text=text)).passed


def test_brackets_of_the_document_itself_are_no_placeholders() -> None:
    output = Written(text="You ask about [Project Alpha].")
    assert verdict(
        no_placeholders,
        output,
        Document(id="d", text="Regarding [Project Alpha]: when?"),
    ).passed
    assert verdict(no_placeholders, output).passed is False


# ---- language -----------------------------------------------------------------------------------

ENGLISH = (
    "Thank you for your message, a colleague will look into the broken lamp tomorrow."
)
GERMAN = "Vielen Dank f\u00fcr Ihre Nachricht, ein Kollege k\u00fcmmert sich morgen um die kaputte Lampe."


def test_an_answer_is_in_the_documents_language() -> None:
    assert verdict(same_language, Written(text=ENGLISH)).passed
    found = verdict(same_language, Written(text=GERMAN))
    assert found == Verdict(
        "language", False, "answers in 'de', the document is in 'en'"
    )


def test_the_language_is_not_judged_where_it_is_not_known() -> None:
    assert verdict(
        same_language, Written(text=GERMAN), Document(id="d", text="t", language=None)
    ).passed
    assert verdict(
        same_language, Written(text="ok"), Document(id="d", text="t", language="de")
    ).passed


# ---- length -------------------------------------------------------------------------------------


def test_a_text_has_at_most_so_many_words() -> None:
    length = at_most_words("text")
    assert length.name == "length"
    assert verdict(length, Written(text="one two  three\n"), max_words=3).passed
    found = verdict(length, Written(text="one two three four"), max_words=3)
    assert found == Verdict("length", False, "`text` has 4 words, more than 3")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_no_answer(text: str) -> None:
    assert (
        verdict(at_most_words("text"), Written(text=text), max_words=3).reason
        == "`text` is empty"
    )


ORDER = Document(
    id="d", text="On 2 October I ordered two desks for 1,298.00 pounds, order LF-20418."
)


@pytest.mark.parametrize(
    "text",
    [
        "Two desks, order LF-20418",
        "They cost 1298.00",
        "Nothing but words",
        "2 October",
    ],
)
def test_numbers_of_the_document_may_be_repeated(text: str) -> None:
    assert verdict(numbers_are_in_the_document, Written(text=text), ORDER).passed


@pytest.mark.parametrize(
    "text", ["order LF-20419", "They cost 1,299.00", "3 October", "in 14 days"]
)
def test_a_number_that_the_document_does_not_have_is_invented(text: str) -> None:
    found = verdict(numbers_are_in_the_document, Written(text=text), ORDER)
    assert found.passed is False
    assert "does not have" in found.reason


# ---- numbers in other forms -----------------------------------------------------------------------

# What a document says, its language, and a summary whose numbers are all in it.
IN_OTHER_FORMS = [
    ("أطلب استرداد مبلغ ٢٤٠ دينارا قبل ١٢ مايو، رقم ٥٥٢١", "ar", "5521: 240, 12"),
    ("मुझे १२ कुर्सियाँ चाहिए", "hi", "12 कुर्सियाँ"),
    ("৩ তারিখে ১২টি চেয়ার", "bn", "12, 3"),
    ("เก้าอี้ ๑๒ ตัว", "th", "12"),
    ("５月１２日に椅子を３脚注文しました", "ja", "5月12日、3脚"),
    ("五月十二日，二百四十元，二〇二六年", "zh", "2026年5月12日，240"),
    ("３万円を返金してください", "ja", "30,000円"),
    ("twelve chairs by the third of December", "en", "12 chairs, 3 December"),
    ("twenty-one lamps, one hundred and five beds, two thousand", "en", "21 105 2000"),
    ("am dreißigsten Mai einundzwanzig Stühle für zwölfhundert", "de", "30. 21"),
    ("zweihunderteinundvierzig Lampen", "de", "241"),
    ("quarante-deux chaises, quatre-vingt-dix-sept lits", "fr", "42 97"),
    ("treinta y dos sillas, mil doscientos cuarenta euros", "es", "32 1240"),
    ("Order num\u00adber 55\u00ad21, price 1\u202f240 euros", "en", "5521 55-21 1240"),
    ("order \u200e5521\u200f, 5\u20602", "en", "5521 52"),
    ("price 1 240,50 Euro", "de", "1,240.50"),
    ("١٬٢٤٠٫٥٠ دينار", "ar", "1240.5"),
    ("2½ hours and ½", "en", "2.5 hours, 1/2"),
    ("point ⑫", "en", "12"),
    ("1240 euros", "en", "1 240 euros"),
    ("on 3 May", "en", "on 03 May"),
]


@pytest.mark.parametrize(("document", "language", "summary"), IN_OTHER_FORMS)
def test_a_number_may_be_written_in_any_form(
    document: str, language: str, summary: str
) -> None:
    source = Document(id="d", text=document, language=language)
    found = verdict(numbers_are_in_the_document, Written(text=summary), source)
    assert found == Verdict("grounding", True)


@pytest.mark.parametrize(
    ("document", "language", "summary"),
    [
        ("someone is alone, phone me, often", "en", "1"),
        ("a lamp, an attentive tension, weight", "en", "10"),
        ("eine Lampe, der Verein, achtsam, Elfen", "de", "1 8 11"),
        ("une lampe, un lit", "fr", "1"),
        ("I went there once", "en", "11"),
        ("twenty-one lamps", "en", "20"),
        ("two chairs, three beds", "en", "5"),
        ("一緒に行きます。十分です", "ja", "1"),
        ("area in m²", "en", "2"),
        ("costs 12.5", "en", "125"),
        ("it costs 240", "en", "2400"),
        ("٢٤٠", "ar", "241"),
        ("MIX, CD and XL", "en", "9 40 400"),
    ],
)
def test_no_other_number_is_read_into_a_document(
    document: str, language: str, summary: str
) -> None:
    source = Document(id="d", text=document, language=language)
    found = verdict(numbers_are_in_the_document, Written(text=summary), source)
    assert found.passed is False


DIGITS = [
    "0123456789",
    "٠١٢٣٤٥٦٧٨٩",
    "०१२३४५६७८९",
    "০১২৩৪৫৬৭৮৯",
    "๐๑๒๓๔๕๖๗๘๙",
    "０１２３４５６７８９",
]


@given(
    number=st.integers(13, 10**7),
    other=st.integers(13, 10**7),
    digits=st.sampled_from(DIGITS),
    split=st.sampled_from(["", "\u00ad", "\u200b", "\u2060"]),
)
def test_a_number_in_another_script_is_found_and_a_wrong_one_is_not(
    number: int, other: int, digits: str, split: str
) -> None:
    assume(number != other)
    written = split.join(digits[int(digit)] for digit in str(number))
    source = Document(id="d", text=f"Total: {written} in all", language="en")
    right = verdict(numbers_are_in_the_document, Written(text=str(number)), source)
    wrong = verdict(numbers_are_in_the_document, Written(text=str(other)), source)
    assert right.passed
    assert wrong.passed is False


def test_a_value_in_a_quotation_may_have_other_digits() -> None:
    source = Document(id="d", text="मुझे १२ कुर्सियाँ चाहिए", language="hi")
    quote = Quoted(quote="१२ कुर्सियाँ", value="12 कुर्सियाँ")
    assert verdict(fields_are_quoted, Terms(price=quote), source).passed
    wrong = Quoted(quote="१२ कुर्सियाँ", value="13 कुर्सियाँ")
    assert verdict(fields_are_quoted, Terms(price=wrong), source).passed is False
