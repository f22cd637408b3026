"""A key's parts in a message: removed in every form that servers show, and no word with them."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.gateway.error_text import safe_detail
from tierwise.gateway.key_parts import mask_key_parts
from tierwise.records import Call, Message

KEY = "sk-proj-Ab3xQ9/zLm+4Tn8vKw2RtYpHj7Dwxyz"
CALL = Call(model="m", identity="m", messages=(Message("user", "hello"),), max_tokens=1)
SHOWN = [
    "Incorrect API key provided: {0}. You can find your key at https://x.example.",
    "Incorrect API key provided: sk-proj-****wxyz.",
    "Incorrect API key provided: sk-pr***************************wxyz",
    "invalid key sk-p…wxyz",
    "invalid key sk-proj-Ab3...wxyz",
    "invalid key sk-proj-Ab3[...]wxyz",
    "invalid key ••••••wxyz",
    "invalid key XXXXXXXXwxyz",
    "the key ending in wxyz has expired",
    "the key that ends with 'wxyz' has expired",
    "key (last four characters: wxyz) is disabled",
    "the key starting with sk-proj-Ab3x is disabled",
    "unknown key Ab3xQ9/zLm+4",
    "unknown key 2RtYpHj7Dwxyz",
    "unknown key Dwxyz7, sk-proj-Ab3xQ9",
    "key sk-proj-Ab3xQ9 zLm 4Tn8vKw2 RtYpHj7Dwxyz in four parts",
    "key sk proj Ab3x Q9zL m4Tn 8vKw 2RtY pHj7 Dwxyz",
    "key SK-PROJ-AB3XQ9/ZLM+4TN8VKW2RTYPHJ7DWXYZ in capitals",
]
ENCODED = {
    "in an address": quote(KEY, safe=""),
    "in an address, small": quote(KEY, safe="").replace("%2F", "%2f"),
    "in JSON": KEY.replace("/", "\\/"),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "basic": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "basic without a user": base64.urlsafe_b64encode(f":{KEY}".encode()).decode(),
    "basic, cut": base64.b64encode(f"user:{KEY}".encode()).decode()[:37],
}
PARTS = re.compile(r"(?i)wxyz|Ab3x|zLm|4Tn8|vKw2|2RtY|pHj7")


@pytest.mark.parametrize("shown", SHOWN)
def test_no_part_of_a_key_is_left(shown: str) -> None:
    line = safe_detail(shown.format(KEY), CALL, [KEY])
    if "Dwxyz7" not in shown:
        assert not PARTS.search(line)
    assert "***" in line
    assert line.split()[0] in shown


@pytest.mark.parametrize("form", ENCODED)
def test_an_encoded_key_is_removed(form: str) -> None:
    line = safe_detail(f"refused: {ENCODED[form]} at 12:30", CALL, [KEY])
    assert line == "refused: *** at 12:30"


def test_another_ones_key_is_removed_and_words_about_keys_stay() -> None:
    for key in ("sk-ab…9xyz", "sk-ant-****abcd", "gsk_...mnop", "Bearer abc123def456"):
        assert safe_detail(f"wrong key: {key}", CALL, []) == "wrong key: ***"
    for words in (
        "bearer authentication is required",
        "use basic authentication",
        "key-value-pairs-are-not-allowed here",
        "a keyboardinterrupt-handler, or a patent-application",
        "wait... then try again",
        "max 4096 tokens (gpt-5-mini) since 2026-11-28",
    ):
        assert safe_detail(words, CALL, [KEY]) == words


def test_a_name_in_a_variable_loses_no_part() -> None:
    """A region, an address or a title is hidden as a whole, as it always was."""
    private = ["eu-west-1", "https://one.example/v1", "Sorting of documents"]
    words = "ask https://two.example in eu-west-2: sorting of letters"
    assert mask_key_parts(words, private) == words
    assert mask_key_parts("at eu-west-1", private) == "at ***"


WORDS = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=9),
    min_size=1,
    max_size=8,
)
KEYS = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_",
    min_size=12,
    max_size=60,
)


@given(WORDS, KEYS)
def test_words_beside_a_key_stay(words: list[str], key: str) -> None:
    """Also the words that are in the key by accident, unless many of them follow each other."""
    line = " ".join(words)
    plain = re.sub("[^a-z0-9]", "", key.lower())
    pieces = {plain[start : start + 12] for start in range(len(plain) - 11)}
    joined = "".join(words)
    if any(piece in joined for piece in pieces if len(piece) == 12):
        return
    if any(
        word in ("end", "ends", "start", "begin", "first", "last") for word in words
    ):
        return
    assert mask_key_parts(line, [key]) == line.replace(key, "***")


@given(KEYS, st.integers(4, 8), st.sampled_from(["…", "...", "****", "••••••"]))
def test_both_ends_of_any_key_are_hidden(key: str, shown: int, hidden: str) -> None:
    if not (any(c.isdigit() for c in key) and any(c.isalpha() for c in key)):
        return
    form = f"{key[:shown]}{hidden}{key[-shown:]}"
    assert mask_key_parts(f"no such key: {form}!", [key]) == "no such key: ***!"
    split = f"{key[: len(key) // 2]} {key[len(key) // 2 :]}"
    if len(re.sub("[^A-Za-z0-9]", "", key)) >= 12:
        assert len(mask_key_parts(f": {split} :", [key])) < len(split)
