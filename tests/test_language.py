"""The language of a text: found by a faster walk through py3langid's model, with its own result."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tests.kit.projects import ROOT
from tierwise.text.language_model import FastIdentifier

TEXTS = [
    "",
    "a",
    "Ok",
    "My order has not arrived yet, please send it again.",
    "MEINE BESTELLUNG IST LEIDER NOCH NICHT ANGEKOMMEN.",
    "Η παραγγελία μου δεν έχει φτάσει ακόμα.",
    "Моя посылка до сих пор не пришла, пожалуйста, отправьте её ещё раз.",
    "لم يصل طلبي بعد، يرجى إرساله مرة أخرى.",
    "今日は天気がいいですね、注文はまだ届いていません。",
    "Моја пошиљка још није стигла. Moja pošiljka još nije stigla.",
    "12345 67890 4711 0815 1234 5678 90",
    "half a character \ud83d and a whole one \U0001f600",
]


@cache
def identifier(kind: type[LanguageIdentifier]) -> LanguageIdentifier:
    return kind.from_model_file(MODEL_FILE, norm_probs=True)


def agree(text: str) -> bool:
    """True where both give each language the same score, to the last bit."""
    fast = identifier(FastIdentifier)
    slow = identifier(LanguageIdentifier)
    same_answer = fast.classify(text) == slow.classify(text)
    return same_answer and fast.rank(text) == slow.rank(text)


@pytest.mark.parametrize("text", TEXTS)
def test_a_language_is_the_one_that_the_library_finds(text: str) -> None:
    assert agree(text)


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_any_text_has_the_librarys_language(text: str) -> None:
    assert agree(text)


def test_long_texts_of_prose_and_of_code_have_the_librarys_language() -> None:
    for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("src/tierwise/text/*.py")]:
        assert agree(path.read_text(encoding="utf-8")[:2000]), path
