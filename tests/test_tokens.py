"""Tokens are counted offline, in time that grows with the length, and never fewer for being odd."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.standin import unused_address
from tierwise.records import Message
from tierwise.text.once import once
from tierwise.text.tokens import TokenCounts, count_tokens, estimate_prompt_tokens


@cache
def reference() -> tiktoken.Encoding:
    """tiktoken's own encoding, read by itself from the tables in LiteLLM's package."""
    [package] = importlib.util.find_spec("litellm").submodule_search_locations  # type: ignore[union-attr, misc]
    folder = Path(package) / "litellm_core_utils" / "tokenizers"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        return tiktoken.get_encoding("o200k_base")


def test_two_words_are_two_tokens_and_an_empty_text_is_none() -> None:
    assert count_tokens("") == 0
    assert count_tokens("hello world") == 2


@given(st.text(max_size=300))
def test_short_texts_count_exactly_as_tiktoken_does(text: str) -> None:
    assert count_tokens(text) == len(reference().encode(text, disallowed_special=()))


def test_special_tokens_in_a_document_are_plain_text() -> None:
    """A document about tokenizers must neither fail nor look shorter than it is."""
    assert count_tokens("<|endoftext|>") > 3


def test_half_of_a_surrogate_pair_can_be_counted() -> None:
    assert count_tokens("broken \ud83d text") > 0


@pytest.mark.parametrize("unit", ["a", " ", ".", "\n", "Qk1Y9+/a", "字", "\u00a0"])
def test_a_megabyte_of_noise_is_counted(unit: str) -> None:
    """tiktoken panics at a million spaces, and other unbroken runs take it seconds."""
    text = unit * (1_000_000 // len(unit))
    assert 0 < count_tokens(text) <= len(text.encode())
    assert count_tokens(f"before {text} after") >= count_tokens(text)


@given(
    st.lists(
        st.sampled_from(
            ["word ", "x" * 999, " " * 1001, "y" * 2500, "\n" * 1000, "12.50 "]
        ),
        max_size=6,
    )
)
def test_cutting_long_runs_changes_a_count_by_little(parts: list[str]) -> None:
    text = "".join(parts)
    whole = len(reference().encode_ordinary(text))
    assert whole <= count_tokens(text) <= whole + len(text) // 10 + 2 * len(parts)


def test_a_prompt_counts_more_than_its_texts_and_grows_with_the_margin() -> None:
    messages = (
        Message("system", "Sort this."),
        Message("user", "The invoice is open. " * 100),
    )
    texts = sum(count_tokens(message.content) for message in messages)
    assert texts < estimate_prompt_tokens(messages) < texts + 30
    assert estimate_prompt_tokens(messages, 1.3) >= 1.3 * estimate_prompt_tokens(
        messages
    )


ALONE = """
import os, sys
from tierwise.text.tokens import count_tokens
print(count_tokens("hello world"), "litellm" in sys.modules, os.environ.get("TIKTOKEN_CACHE_DIR"))
"""


def run_alone(**env: str) -> subprocess.CompletedProcess[str]:
    """Count in a fresh process whose downloads must all fail."""
    proxy = unused_address()
    clean = {
        k: v
        for k, v in os.environ.items()
        if k not in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")
    }
    env = {**clean, "HTTPS_PROXY": proxy, "https_proxy": proxy, **env}
    return subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, env=env
    )


def test_counting_needs_no_network_no_litellm_and_leaves_the_environment_alone() -> (
    None
):
    done = run_alone()
    assert (done.stdout, done.stderr) == ("2 False None\n", "")


def test_a_users_own_folder_of_tables_is_used(tmp_path: object) -> None:
    """It is empty here, so tiktoken tries to download and cannot."""
    done = run_alone(TIKTOKEN_CACHE_DIR=str(tmp_path))
    assert done.returncode != 0
    assert "Connection" in done.stderr


def test_a_texts_tokens_are_remembered_and_the_oldest_are_forgotten() -> None:
    counts = TokenCounts(most=2)
    texts = {"1": "one", "2": "one two", "3": "one two three"}
    for name, text in texts.items():
        assert counts.count(text, name) == count_tokens(text)
    # another text under the same name shows what is remembered
    remembered = {name: counts.count("", name) for name in ("3", "2")}
    assert remembered == {"3": 3, "2": 2}
    assert counts.count("", "1") == 0


def test_threads_that_need_a_table_at_once_load_it_once() -> None:
    loads = []

    @once
    def table() -> object:
        loads.append(1)
        time.sleep(0.05)  # the others come meanwhile
        return object()

    tables = []
    threads = [
        threading.Thread(target=lambda: tables.append(table())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(tables) == 4
    assert len(set(tables)) == 1
