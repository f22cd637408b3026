"""Encodings: the bytes count for more than a label, and where they leave a doubt, a document waits."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.languages import ENCODINGS, LETTERS, samples, writable
from tests.kit.reading import read, reason
from tierwise.documents.readers import decode
from tierwise.documents.readers.formats import extract
from tierwise.errors import DocumentError

JAPANESE = "注文した椅子がまだ届きません。至急ご連絡ください。"
GERMAN = "Die Möbel für Frau Müller kommen zu spät, bitte prüfen Sie die Größe."
# ISO-2022-JP as Outlook writes it: ① and ㈱ of NEC, which the standard lacks.
NEC = b"\x1b$B-!-j\x1b(B\x1b$BCmJ8$7$?0X;R\x1b(B"


def write(folder: Path, **files: bytes) -> Path:
    """Write files, whose names have two underscores for the dot."""
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def outcome(data: bytes, text: str, declared: str | None = None) -> str:
    """Return whether the bytes are read right or wrong, or wait."""
    try:
        found, _ = decode(data, declared)
    except DocumentError:
        return "waits"
    same = unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", text)
    return "right" if same else "wrong"


@pytest.mark.parametrize("letters", [20, 60, 150])
def test_no_language_in_its_old_encodings_is_read_wrongly(letters: int) -> None:
    """Of all languages, most are read right; none is wrong in silence."""
    counts: Counter[str] = Counter()
    for _, encoding, text in samples(letters, 400):
        counts[outcome(text.encode(encoding), text)] += 1
    assert counts["wrong"] == 0
    assert counts["right"] > 0.8 * counts.total()


@pytest.mark.parametrize("language", ENCODINGS)
def test_a_true_label_is_kept_and_a_letter_is_read_without_one(language: str) -> None:
    whole = LETTERS[language][:160]
    encoding = ENCODINGS[language][0]
    text = writable(whole, language, encoding)
    assert text is not None
    data = text.encode(encoding)
    assert outcome(data, text, encoding) == "right"
    assert outcome(data, text) == "right"


@pytest.mark.parametrize(
    "label",
    [
        "iso-8859-1",
        "windows-1252",
        "us-ascii",
        "utf-16",
        "utf-16be",
        "windows-1251",
        "gb2312",
        "shift_jis",
        "koi8-r",
        "x-unknown",
        "iso-2022-jp",
        "unicode_escape",
    ],
)
@pytest.mark.parametrize("text", [GERMAN, JAPANESE, LETTERS["ru"], "Preis: 40 €"])
def test_utf8_is_utf8_whatever_its_label(label: str, text: str) -> None:
    found, notes = decode(text.encode(), label)
    assert found == text
    assert notes.get("encoding", "utf-8") == "utf-8"


@pytest.mark.parametrize("label", ["utf-16", "utf-16be", "utf-16le", "utf-7", "cp037"])
def test_ascii_is_ascii_whatever_its_label(label: str) -> None:
    assert decode(b"Hello there, 3 chairs", label)[0] == "Hello there, 3 chairs"


@pytest.mark.parametrize(
    "encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize(
    "label", [None, "utf-16", "utf-16le", "utf-16be", "iso-8859-1"]
)
@pytest.mark.parametrize("language", ["de", "ru", "el", "he", "ja", "ko", "th", "pl"])
def test_utf16_needs_no_mark_and_survives_the_wrong_label(
    encoding: str, label: str | None, language: str
) -> None:
    text = LETTERS[language][:60] + "\n" + LETTERS[language][60:120]
    assert decode(text.encode(encoding), label)[0] == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (JAPANESE.encode("iso2022_jp"), JAPANESE),
        (NEC, "①㈱注文した椅子"),
        ("丂丄注文".encode("iso2022_jp_1"), "丂丄注文"),  # JIS X 0212
        ("ｱｲｽです".encode("iso2022_jp_ext"), "ｱｲｽです"),  # half-width kana
        (b"\x1b(I1239\x1b(B", "ｱｲｳｹ"),
        (b"\x0e1239\x0f ok", "ｱｲｳｹ ok"),  # cp50222: SO and SI
        ("俱吞 注文".encode("iso2022_jp_2004"), "俱吞 注文"),  # JIS X 0213
        ("注文 한국어 中国".encode("iso2022_jp_2"), "注文 한국어 中国"),
        (JAPANESE.encode("iso2022_jp").removesuffix(b"\x1b(B") + b"\nOK", f"{JAPANESE}\nOK"),
        ("한국어 의자가 아직".encode("iso2022_kr"), "한국어 의자가 아직"),
        ("你好，我的椅子还没有送到".encode("hz"), "你好，我的椅子还没有送到"),
        ("Größe für 2+3 Stühle".encode("utf-7"), "Größe für 2+3 Stühle"),
        ("Привет, где мой заказ?".encode("utf-7"), "Привет, где мой заказ?"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "label", [None, "us-ascii", "iso-8859-1", "utf-8", "iso-2022-jp"]
)
def test_seven_bits_are_read_by_their_escape_sequences(
    data: bytes, text: str, label: str | None
) -> None:
    if b"\x0e" in data and label != "iso-2022-jp" and b"\x1b" not in data:
        pytest.skip("without a sequence or a label, SO is a control character")
    found, notes = decode(data, label)
    assert found.replace("−", "-") == text
    if label is None:
        assert notes["encoding"] in ("iso-2022", "hz", "utf-7")


@pytest.mark.parametrize(
    "text",
    [
        "call +49123456 or write to me+tag@example.org, C++ and 3+4=7",
        "(format ~{~a~} items) and ~{x~}",
        "\x1b[31mERROR\x1b[0m the chair is broken",
        "costs $B or $@ and (B), see ESC",
        "a+b- and +- and +/-",
    ],
)
def test_what_only_looks_like_seven_bits_stays(text: str) -> None:
    assert decode(text.encode())[0] == text


@pytest.mark.parametrize(
    "data",
    [
        b"\x1b$BCmJ8$7$?0",  # half a character
        b"\x1b$BCm\x1b(X and more",  # no such set
        b"chair\x1bsofa\x1btable\x1b",
        b"\x01\x02chair\x03",
        "Für\x81 Frau M\x9aller".encode(),
        b"Die M\x94bel\x80\x81\x8d\x8f f\x81r" * 3 + b"\x00",
    ],
)
def test_a_text_full_of_control_characters_is_damaged(data: bytes) -> None:
    with pytest.raises(DocumentError, match=r"damaged|binary"):
        decode(data)


@pytest.mark.parametrize(
    ("text", "encoding", "label"),
    [
        (LETTERS["ru"][:80], "koi8-r", "iso-8859-1"),
        (LETTERS["ru"][:80], "cp1251", "koi8-r"),
        (LETTERS["tr"][:80], "cp1254", "windows-1252"),
        (LETTERS["pl"][:80], "iso8859-2", "windows-1252"),
        (LETTERS["ja"][:40], "cp932", "euc-jp"),
        (LETTERS["zh"][:40], "gb18030", "iso-8859-1"),
        (LETTERS["ko"][:40], "cp949", "windows-1252"),
        (LETTERS["de"][:80], "cp1252", "utf-8"),
        (LETTERS["el"][:80], "iso8859-7", "big5"),
    ],
)
def test_evidence_beats_a_false_label_and_says_so(
    text: str, encoding: str, label: str
) -> None:
    found, notes = decode(text.encode(encoding), label)
    assert found == text
    assert notes["encoding_declared"]
    assert float(notes["encoding_confidence"]) > 0.9


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Łódź", "iso8859-2"), ("椅子", "gb18030"), ("Żółć", "cp1250"), ("ã", "cp1252")],
)
def test_a_text_too_short_to_decide_waits(
    tmp_path: Path, text: str, encoding: str
) -> None:
    documents = read(write(tmp_path, a__txt=text.encode(encoding)))
    said = reason(documents["a.txt"])
    assert "encoding" in said
    assert "save it as UTF-8" in said


def test_noise_is_no_text() -> None:
    generator = random.Random(7)
    for size in (30, 100, 300):
        data = bytes(generator.randrange(0xA0, 256) for _ in range(size))
        assert outcome(data, "") == "waits"


def test_a_long_line_is_judged_by_its_letters_beyond_ascii() -> None:
    text = "x" * 5000 + " plain words " * 500 + LETTERS["tr"] + " and more" * 500
    assert outcome(text.encode("cp1254"), text) == "right"


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=60),
    st.sampled_from([None, "utf-8", "cp1252", "iso-2022-jp", "x"]),
)
def test_any_bytes_are_text_or_a_reason(data: bytes, label: str | None) -> None:
    with suppress(DocumentError):
        text, notes = decode(data, label)
        assert all(isinstance(value, str) for value in [text, *notes.values()])


def test_documents_of_all_formats_are_read_by_their_bytes(tmp_path: Path) -> None:
    turkish = "Üç hafta önce sipariş ettiğim sandalye hâlâ gelmedi. Lütfen bana ulaşın."
    html = f"<html><head><meta charset='iso-8859-1'></head><p>{GERMAN} – 40 €</p>"
    latin_mail = b"From: a@b.de\r\nSubject: x\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
    japanese_mail = (
        b"From: a@b.jp\r\nSubject: x\r\nContent-Type: text/plain; charset=%s\r\n\r\n"
    )
    folder = write(
        tmp_path,
        turkish__txt=turkish.encode("cp1254"),
        japanese__txt=JAPANESE.encode("iso2022_jp"),
        page__html=html.encode(),
        latin__eml=latin_mail
        + b"Content-Transfer-Encoding: 8bit\r\n\r\n"
        + GERMAN.encode(),
        nec__eml=japanese_mail % b"ISO-2022-JP" + NEC,
        bare__eml=b"From: a@b.jp\r\nSubject: x\r\n\r\n" + JAPANESE.encode("iso2022_jp"),
        rows__csv=f"text\n{JAPANESE}\n{JAPANESE}!\n".encode("iso2022_jp"),
        wide__csv=f'text\n"{GERMAN}"\n'.encode("utf-16-le"),
        turkish__csv=f'text\n"{turkish}"\n'.encode("cp1254"),
    )
    documents = read(folder)
    assert documents["turkish.txt"].text == turkish
    assert documents["turkish.txt"].metadata["encoding"] == "cp1254"
    assert documents["japanese.txt"].text == JAPANESE
    assert GERMAN in documents["page.html"].text
    assert GERMAN in documents["latin.eml"].text
    assert "①㈱注文した椅子" in documents["nec.eml"].text
    assert JAPANESE in documents["bare.eml"].text
    assert documents["rows.csv#1"].text == JAPANESE
    assert documents["rows.csv#2"].text == f"{JAPANESE}!"
    assert documents["wide.csv#1"].text == GERMAN
    assert documents["turkish.csv#1"].text == turkish


def test_html_in_utf16_without_a_mark_is_read() -> None:
    page = f"<meta charset='utf-8'><p>{GERMAN}</p>".encode("utf-16-le")
    assert GERMAN in extract(page, ".html").text
