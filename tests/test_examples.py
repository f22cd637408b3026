"""The example documents and the golden sets are what their READMEs say, and keep apart what must be apart."""

from __future__ import annotations

import email
import json
import re
from collections import Counter
from email import policy
from pathlib import Path
from typing import Any

import docx
import pypdf
import pytest
from rapidfuzz import fuzz, process

from flows.contract_intake import ContractTerms
from tierwise.policy.catalog import load_catalog

ROOT = Path(__file__).parents[1]
INBOX = ROOT / "examples" / "inbox"
CONTRACTS = ROOT / "examples" / "contracts"
MEETINGS = ROOT / "examples" / "meetings"
GOLDEN = ROOT / "golden"
LABELS = {"billing", "delivery", "defect", "question", "praise"}
FIELDS = {
    "classify.jsonl": {"id", "text", "label", "difficulty"},
    "classify-examples.jsonl": {"id", "text", "label", "difficulty", "evidence"},
    "extract.jsonl": {"id", "text", "expected"},
    "summarize.jsonl": {"id", "text", "reference", "must_mention"},
    "draft.jsonl": {"id", "text", "outcomes", "must_mention", "must_not"},
    "actions.jsonl": {"id", "text", "expected"},
}
CLASSIFY = ("classify.jsonl", "classify-examples.jsonl")
# token-set ratio; texts written apart stay below 72, one text with every ninth word changed is above 95
NEAR = 80
# words; a shorter text's words may all occur in a longer one by chance
SHORT = 25


def golden(name: str) -> list[dict[str, Any]]:
    lines = (GOLDEN / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def words(text: str) -> int:
    return len(text.split())


def normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def near_duplicates(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Pairs of ids whose texts have (nearly) the same words.

    All words of a line such as "Perfect. Thanks." occur in many letters, so a short text is
    compared as a whole and not as a part of the other one.
    """
    ids = list(texts)
    scores = process.cdist(
        texts.values(), texts.values(), scorer=fuzz.token_set_ratio, score_cutoff=NEAR
    )
    pairs = [(ids[i], ids[j]) for i, j in zip(*scores.nonzero(), strict=True) if i < j]
    return [
        (one, other)
        for one, other in pairs
        if min(words(texts[one]), words(texts[other])) >= SHORT
        or fuzz.token_sort_ratio(texts[one], texts[other]) >= NEAR
    ]


def without_front_matter(text: str) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)


def message_text(path: Path) -> str:
    """What the customer wrote: no headers, markup or front matter."""
    if path.suffix == ".eml":
        body = email.message_from_bytes(
            path.read_bytes(), policy=policy.default
        ).get_body(("plain",))
        assert body is not None
        return str(body.get_content())
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        return re.sub(
            r"<(style|script|title)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL
        )
    return without_front_matter(text)


def contract_text(path: Path) -> str:
    match path.suffix:
        case ".docx":
            return "\n".join(
                paragraph.text for paragraph in docx.Document(str(path)).paragraphs
            )
        case ".pdf":
            return "\n".join(
                page.extract_text() for page in pypdf.PdfReader(path).pages
            )
        case _:
            return without_front_matter(path.read_text(encoding="utf-8"))


def confidential(folder: Path) -> set[str]:
    """Names of the files that say so in their front matter."""
    head = b"---\nsensitivity: confidential\n---\n"
    return {
        path.name for path in folder.iterdir() if path.read_bytes().startswith(head)
    }


def rows(folder: str) -> dict[str, list[str]]:
    """The cells of a table in examples/README.md, by file name."""
    section = (
        (ROOT / "examples" / "README.md")
        .read_text(encoding="utf-8")
        .split(f"## `{folder}/`")[1]
        .split("\n## ")[0]
    )
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line[:3] == "| `"
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


@pytest.mark.parametrize("name", FIELDS)
def test_a_golden_file_has_one_well_formed_example_a_line(name: str) -> None:
    examples = golden(name)
    assert examples
    for example in examples:
        assert set(example) == FIELDS[name], example["id"]
        assert example["text"].strip() == example["text"] != ""


def test_no_id_and_no_text_is_used_twice() -> None:
    everything = [example for name in FIELDS for example in golden(name)]
    for values in (
        [e["id"] for e in everything],
        [normalised(e["text"]) for e in everything],
    ):
        assert [value for value, count in Counter(values).items() if count > 1] == []


@pytest.mark.parametrize(
    ("name", "least"), [("classify.jsonl", 500), ("classify-examples.jsonl", 250)]
)
def test_every_topic_has_enough_labelled_messages_of_both_difficulties(
    name: str, least: int
) -> None:
    examples = golden(name)
    topics = Counter(example["label"] for example in examples)
    assert len(examples) >= least
    assert set(topics) == LABELS
    assert min(topics.values()) >= 0.8 * len(examples) / len(LABELS)
    assert {(e["label"], e["difficulty"]) for e in examples} == {
        (x, d) for x in LABELS for d in ("easy", "hard")
    }


def test_labelled_messages_are_short_and_long_as_in_a_real_inbox() -> None:
    """From a line to a letter, so that a certificate isn't one for messages of one length."""
    lengths = sorted(words(example["text"]) for example in golden("classify.jsonl"))
    assert lengths[0] <= 6
    assert 80 <= lengths[-1] <= 220
    assert 25 <= lengths[len(lengths) // 2] <= 60


def test_the_evidence_of_a_teaching_example_is_a_short_quotation() -> None:
    """A model copies what it's shown: whole words of the message, letter by letter, and few of them."""
    for example in golden("classify-examples.jsonl"):
        evidence = example["evidence"]
        assert re.search(rf"(?<!\w){re.escape(evidence)}(?!\w)", example["text"]), (
            example["id"],
            evidence,
        )
        assert 3 <= words(evidence) <= 9, (example["id"], evidence)
        assert len(evidence) <= 60, (example["id"], evidence)


def test_a_prefix_of_a_classify_file_is_a_fair_sample() -> None:
    """Lines are shuffled, so that the first fifty messages already have every topic, and none too often."""
    for name in CLASSIFY:
        first = Counter(example["label"] for example in golden(name)[:50])
        assert set(first) == LABELS
        assert max(first.values()) <= 20


def test_nothing_that_is_measured_resembles_what_is_shown_or_the_inbox() -> None:
    """Near-duplicates would let a model copy its answer; the inbox stays unseen for the demo."""
    texts = {e["id"]: normalised(e["text"]) for name in CLASSIFY for e in golden(name)}
    texts |= {path.name: normalised(message_text(path)) for path in INBOX.iterdir()}
    assert near_duplicates(texts) == []


def test_a_message_with_a_few_words_changed_would_be_found() -> None:
    """The threshold above is not so high that it finds nothing."""
    for example in golden("classify.jsonl"):
        text = normalised(example["text"])
        changed = " ".join(
            "other" if i % 9 == 8 else word for i, word in enumerate(text.split())
        )
        if " " in text:
            assert near_duplicates({"it": text, "copy": changed}) == [("it", "copy")]


def test_what_extraction_expects_stands_in_the_text_letter_by_letter() -> None:
    for example in golden("extract.jsonl"):
        expected = example["expected"]
        assert set(expected) == set(ContractTerms.model_fields)
        stated = [
            ways if isinstance(ways, list) else [ways]
            for ways in expected.values()
            if ways is not None
        ]
        assert [
            way for ways in stated for way in ways if way not in example["text"]
        ] == [], example["id"]


def test_some_contracts_leave_each_optional_term_out() -> None:
    """A model that always answers something must be able to fail."""
    expected = [example["expected"] for example in golden("extract.jsonl")]
    for key in ("effective_date", "governing_law", "term"):
        assert {item[key] is None for item in expected} == {True, False}, key


def test_a_reference_summary_is_short_and_holds_its_own_facts() -> None:
    for example in golden("summarize.jsonl"):
        assert words(example["reference"]) <= 40, example["id"]
        assert 2 <= len(example["must_mention"]) <= 4, example["id"]
        for fact in example["must_mention"]:
            assert fact in example["text"], (example["id"], fact)
            assert fact in example["reference"], (example["id"], fact)


def test_a_reply_can_mention_what_it_must_without_saying_what_it_must_not() -> None:
    for example in golden("draft.jsonl"):
        wanted = " ".join(example["must_mention"]).casefold()
        assert example["must_mention"], example["id"]
        assert example["must_not"], example["id"]
        assert [
            word for word in example["must_not"] if word.casefold() in wanted
        ] == [], example["id"]
        assert [
            word for word in example["must_mention"] if word not in example["text"]
        ] == [], example["id"]


def test_the_inbox_has_twelve_messages_of_mixed_kinds() -> None:
    kinds = Counter(path.suffix for path in INBOX.iterdir())
    assert kinds == {".txt": 6, ".md": 3, ".eml": 2, ".html": 1}
    lengths = {path.name: words(message_text(path)) for path in INBOX.iterdir()}
    assert {name: n for name, n in lengths.items() if not 80 <= n <= 180} == {}
    assert len(confidential(INBOX)) == 2


def test_the_mails_are_well_formed_and_one_has_an_html_part() -> None:
    mails = [
        email.message_from_bytes(p.read_bytes(), policy=policy.default)
        for p in sorted(INBOX.glob("*.eml"))
    ]
    for mail in mails:
        assert mail.defects == []
        assert mail["Date"].datetime is not None
        assert mail["From"].addresses[0].domain.endswith(".example")
    assert [mail.get_content_type() for mail in mails] == [
        "text/plain",
        "multipart/alternative",
    ]


def test_one_message_attacks_the_prompt() -> None:
    """It closes the document, sends a template expression and asks for another label."""
    attacks = [
        path
        for path in INBOX.iterdir()
        if "{{ 7*7 }}" in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert len(attacks) == 1
    assert "</document>" in attacks[0].read_text(encoding="utf-8")


def test_there_are_four_contracts_that_fit_a_small_window() -> None:
    assert Counter(path.suffix for path in CONTRACTS.iterdir()) == {
        ".md": 2,
        ".docx": 1,
        ".pdf": 1,
    }
    lengths = {path.name: words(contract_text(path)) for path in CONTRACTS.iterdir()}
    assert {name: n for name, n in lengths.items() if not 700 <= n <= 1100} == {}
    assert confidential(CONTRACTS) == {"nda.md"}


def test_one_contract_names_no_law_and_one_has_no_limit_of_liability() -> None:
    texts = {
        path.stem: " ".join(contract_text(path).split()) for path in CONTRACTS.iterdir()
    }
    assert {
        name
        for name, text in texts.items()
        if not re.search(r"governed by|law of .* applies", text)
    } == {"nda"}
    assert {
        name for name, text in texts.items() if "not limited in amount" in text
    } == {"freelance-services"}


def test_what_was_agreed_is_told_in_words_of_the_transcript() -> None:
    for example in golden("actions.jsonl"):
        expected = example["expected"]
        for words_of_it in (
            *expected["decisions"],
            *(action["words"] for action in expected["actions"]),
        ):
            assert words_of_it in example["text"], example["id"]
        assert all(
            f"{action['who']}: " in example["text"] for action in expected["actions"]
        )


@pytest.mark.parametrize(
    ("folder", "sensitivity"), [(INBOX, 2), (CONTRACTS, 5), (MEETINGS, 3)]
)
def test_the_examples_readme_lists_every_file_with_its_sensitivity(
    folder: Path, sensitivity: int
) -> None:
    table = rows(folder.name)
    assert set(table) == {path.name for path in folder.iterdir()}
    assert {
        name for name, row in table.items() if row[sensitivity] == "confidential"
    } == confidential(folder)


def test_the_inbox_has_every_topic() -> None:
    assert {row[1] for row in rows("inbox").values()} == LABELS


def test_the_golden_readme_counts_right() -> None:
    table = (GOLDEN / "README.md").read_text(encoding="utf-8")
    for name in FIELDS:
        assert f"| `{name}` | {len(golden(name))} |" in table


def test_the_demo_fetches_what_its_models_need_and_says_something_first() -> None:
    """`make demo` trains on an embedder and runs embedded models: no download comes later."""
    catalog = load_catalog(ROOT / "routing_rules" / "catalog.yaml")
    embedded = {
        name
        for name, entry in catalog.models.items()
        # entries with `like` share the weights of the first one
        if entry.weights and not entry.weights.file and not entry.uses_few_shot
    }
    needed = embedded | set(catalog.models["topic-classifier"].embedder)
    recipe = (ROOT / "Makefile").read_text().split("\ndemo:")[1].split("\n\n")[0]
    first, fetch = [line.strip() for line in recipe.splitlines()][1:3]
    assert first.startswith("@echo")
    assert set(fetch.split("fetch ")[1].split()) == needed
