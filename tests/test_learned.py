"""What labels teach: examples, neighbours, a classifier, its file, and from which confidence on it may answer."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.classifiers import Bomb, edited, forged
from tierwise.errors import ConfigError, UnknownName
from tierwise.evidence.training.labelled import (
    Labelled,
    data_hash,
    load_labelled,
    split,
)
from tierwise.evidence.training.train import identity_before, train
from tierwise.gateway.learned.classifier import Classifier
from tierwise.gateway.learned.files import load, read_metadata, save
from tierwise.records import Document
from tierwise.text.neighbours import Neighbours
from tierwise.text.terms import Terms, normalised, vectorisers

ROOT = Path(__file__).parent.parent
EXAMPLES = load_labelled(ROOT / "golden" / "classify-examples.jsonl")
GOLDEN = load_labelled(ROOT / "golden" / "classify.jsonl")
MESSAGES = ROOT.parent / "shared" / "data" / "banking77" / "messages.csv"

WORDS = [
    "a",
    "refund",
    "of",
    "the",
    "broken",
    "desk",
    "lamp",
    "late",
    "Thanks!",
    "wrong?",
    "12",
    "Straße",
    "ÉTÉ",
    "\n",
]
words = st.sampled_from(WORDS)
texts = st.lists(words, max_size=8).map(" ".join)


def few(*rows: tuple[str, str]) -> list[Labelled]:
    """Examples from pairs of text and label, numbered."""
    return [
        Labelled(f"e{number}", text, label)
        for number, (text, label) in enumerate(rows, 1)
    ]


def written(folder: Path, content: str, name: str = "labels.jsonl") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# --- labelled examples ---------------------------------------------------------------------------


def test_json_lines_are_read_and_other_fields_ignored(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "\ufeff"
        + lines({"id": "a", "text": "Hello", "label": "x", "difficulty": "hard"})
        + "\n",
    )
    assert load_labelled(path, at_least=1) == (Labelled("a", "Hello", "x"),)


def test_rows_of_a_csv_file_are_called_after_their_place(tmp_path: Path) -> None:
    path = written(tmp_path, 'text,intent\n"Two\nlines",x\nOne,y\n', "rows.csv")
    assert load_labelled(path, at_least=1) == (
        Labelled("rows.csv#1", "Two\nlines", "x"),
        Labelled("rows.csv#2", "One", "y"),
    )


def test_a_csv_files_own_ids_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path, "id,label,text\nm7,x,Hello\n", "rows.csv")
    assert load_labelled(path, at_least=1) == (Labelled("m7", "Hello", "x"),)


@pytest.mark.skipif(
    not MESSAGES.exists(), reason="the Banking77 messages are not on this machine"
)
def test_a_file_of_real_messages_is_read_whole() -> None:
    messages = load_labelled(MESSAGES)
    assert len(messages) == 3000
    assert len({message.label for message in messages}) == 77


GOOD = {"id": "a", "text": "Hello", "label": "praise"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lines(GOOD) + "{oops\n",
            r"labels.jsonl:2: not valid JSON: .*write one object a line",
        ),
        (lines(GOOD) + "[1]\n", r"labels.jsonl:2: not a JSON object; write"),
        (
            lines({"id": "a", "label": "praise"}),
            r"labels.jsonl:1: has no 'text'; found: id, label",
        ),
        (
            lines({**GOOD, "text": " \n"}),
            r"labels.jsonl:1: 'text' must be a text that is not empty",
        ),
        (lines({**GOOD, "id": 7}), r"labels.jsonl:1: 'id' must be a text .*found 7"),
        (
            lines(GOOD, {**GOOD, "text": "Hi"}),
            r"labels.jsonl:2: the id 'a' is already on line 1",
        ),
        (
            lines({**GOOD, "label": "priase"}),
            r"labels.jsonl:1: no label named 'priase'; did you mean 'praise'\?",
        ),
        (
            lines({**GOOD, "label": "zzz"}),
            r"labels.jsonl:1: no label named 'zzz'; known: billing, praise",
        ),
        (
            lines(GOOD),
            r"labels.jsonl: 1 examples are too few to learn from; label at least 20",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_place_thing_and_remedy(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_labelled(written(tmp_path, content), ["praise", "billing"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "text,label\nHello,x\nBye\n",
            r"rows.csv:3: has 1 cells where the header has 2",
        ),
        (
            'text,label\n"a\nb",x\n,x\n',
            r"rows.csv:4: 'text' must be a text that is not empty",
        ),
        (
            "message,topic\nHello,x\n",
            r"rows.csv:2: has no 'text'; found: id, message, topic",
        ),
        ('text,label\n"Hello"there,x\n', r"rows.csv:2: not valid CSV"),
    ],
)
def test_a_wrong_csv_file_is_refused_with_the_line_where_its_row_starts(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_labelled(written(tmp_path, content, "rows.csv"), at_least=1)


def test_a_missing_file_and_one_in_another_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.jsonl: .*missing"):
        load_labelled(tmp_path / "nowhere.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.jsonl: it is not UTF-8"):
        load_labelled(tmp_path / "latin.jsonl")


def test_the_datas_hash_knows_texts_and_labels_but_neither_order_nor_ids() -> None:
    first, second = few(("Hello", "x"), ("Bye", "y"))
    assert data_hash([first, second]) == data_hash(
        [second, dataclasses.replace(first, id="other")]
    )
    assert data_hash([first, second]) != data_hash(
        [first, dataclasses.replace(second, label="x")]
    )
    assert data_hash([first, second]) != data_hash([first, second, second])


@given(st.lists(texts, max_size=12), texts, st.floats(0, 1))
def test_a_split_loses_nothing_parts_no_equal_texts_and_moves_none_for_a_new_one(
    some: list[str], new: str, share: float
) -> None:
    examples = few(*((text, "x") for text in some))
    fit, certify = split(examples, share, "salt")
    assert sorted(fit + certify, key=examples.index) == examples
    assert not {normalised(e.text) for e in fit} & {normalised(e.text) for e in certify}
    more = split([Labelled("new", new, "x"), *examples], share, "salt")
    assert set(fit) <= set(more[0])
    assert set(certify) <= set(more[1])


def test_a_split_has_about_the_share_asked_for_and_another_salt_splits_otherwise() -> (
    None
):
    fit, certify = split(GOLDEN, 0.4, "one")
    assert 0.3 < len(fit) / len(GOLDEN) < 0.5
    assert split(GOLDEN, 0.4, "two") != (fit, certify)
    assert [len(part) for share in (0, 1) for part in split(GOLDEN, share)] == [
        0,
        len(GOLDEN),
        len(GOLDEN),
        0,
    ]


# --- neighbours ----------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(texts.filter(str.strip), min_size=1, max_size=8), texts)
def test_the_terms_of_one_text_are_those_that_scikit_learn_gives(
    collection: list[str], text: str
) -> None:
    """One text at a time is weighed by our own sum; it has to agree with the library's."""
    union = vectorisers().fit(collection)
    row = union.transform([text]).toarray()[0]
    places, weights = Terms.fitted(union).weigh(text)
    assert sorted(places) == row.nonzero()[0].tolist()
    assert row[places].tolist() == pytest.approx(weights, abs=1e-5)


def test_the_nearest_example_comes_last() -> None:
    neighbours = Neighbours(
        few(
            ("The lamp is broken", "defect"),
            ("Where is my parcel?", "delivery"),
            ("Where is my lamp?", "delivery"),
        )
    )
    assert [e.text for e in neighbours.nearest("where is my parcel now", 2)] == [
        "Where is my lamp?",
        "Where is my parcel?",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Where is my parcel?",
        "where  is my\nPARCEL",
        "Where is my parcel!!",
        "“Where is my parcel?”",
    ],
)
def test_an_example_with_the_questions_own_text_is_never_shown(text: str) -> None:
    neighbours = Neighbours(
        few(("Where is my parcel?", "delivery"), ("The lamp is broken", "defect"))
    )
    assert [e.label for e in neighbours.nearest(text, 2)] == ["defect"]


def test_excluded_ids_and_text_hashes_are_never_shown_and_others_take_their_place() -> (
    None
):
    documents = [
        Document(id=f"d{n}", text=f"My parcel number {n} is late") for n in range(40)
    ]
    neighbours = Neighbours(documents)
    hidden = {documents[n].id for n in range(15)} | {
        documents[n].hash for n in range(15, 30)
    }
    shown = neighbours.nearest("My parcel is late", 8, exclude=hidden)
    assert len(shown) == 8
    assert {d.id for d in shown} <= {d.id for d in documents[30:]}


def test_equally_near_examples_come_in_an_order_that_does_not_hang_on_the_files() -> (
    None
):
    examples = [Labelled(f"e{n}", f"late parcel {n}", "x") for n in range(9)]
    forward, backward = Neighbours(examples), Neighbours(examples[::-1])
    assert (
        forward.nearest("late parcel", 3)
        == backward.nearest("late parcel", 3)
        == tuple(examples[2::-1])
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(texts.filter(str.strip), min_size=1, max_size=20), texts, st.integers(0, 9)
)
def test_as_many_neighbours_come_as_there_are_and_none_twice(
    collection: list[str], text: str, k: int
) -> None:
    examples = few(*((item, "x") for item in collection))
    shown = Neighbours(examples).nearest(text, k, exclude={"e1"})
    allowed = [e for e in examples[1:] if normalised(e.text) != normalised(text)]
    assert len(shown) == min(k, len(allowed))
    assert len(set(shown)) == len(shown)
    assert set(shown) <= set(allowed)


def test_no_examples_have_no_neighbours() -> None:
    assert Neighbours[Labelled]([]).nearest("hello", 3) == ()


def test_many_threads_may_ask_at_once() -> None:
    neighbours = Neighbours(EXAMPLES)
    alone = [neighbours.nearest(golden.text, 5) for golden in GOLDEN]
    with ThreadPoolExecutor(8) as pool:
        assert (
            list(pool.map(lambda golden: neighbours.nearest(golden.text, 5), GOLDEN))
            == alone
        )


def test_neighbours_mostly_know_the_right_label() -> None:
    """Of the customer messages, at least 9 in 10 have their label among the 8 nearest examples."""
    neighbours = Neighbours(EXAMPLES)
    known = [
        g.label in {e.label for e in neighbours.nearest(g.text, 8)} for g in GOLDEN
    ]
    assert sum(known) / len(known) > 0.9


# --- the classifier ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return train(EXAMPLES)


def test_it_is_right_far_more_often_than_chance_and_about_as_often_as_it_says(
    classifier: Classifier,
) -> None:
    """Five labels, 130 examples, messages it never saw: six in ten right, and its confidence says so."""
    predictions = classifier.predict(golden.text for golden in GOLDEN)
    accuracy = sum(
        p.label == g.label for p, g in zip(predictions, GOLDEN, strict=True)
    ) / len(GOLDEN)
    stated = sum(p.confidence for p in predictions) / len(GOLDEN)
    assert accuracy > 0.58
    assert abs(stated - accuracy) < 0.12


def test_what_it_is_surer_of_is_right_more_often(classifier: Classifier) -> None:
    pairs = sorted(
        zip(classifier.predict(g.text for g in GOLDEN), GOLDEN, strict=True),
        key=lambda p: p[0].confidence,
    )
    right = [prediction.label == golden.label for prediction, golden in pairs]
    half = len(right) // 2
    assert sum(right[half:]) / len(right[half:]) > sum(right[:half]) / half + 0.15


def test_training_on_the_same_data_in_another_order_gives_the_same_predictions(
    classifier: Classifier,
) -> None:
    again = train(EXAMPLES[::-1])
    texts = [golden.text for golden in GOLDEN]
    assert again.predict(texts) == classifier.predict(texts)
    assert again.identity == classifier.identity


def test_other_data_or_another_seed_is_another_identity() -> None:
    examples = few(*[("good", "x"), ("bad", "y")] * 3)
    identities = {
        train(examples).identity,
        train(examples, seed=1).identity,
        train(examples * 2).identity,
    }
    assert len(identities) == 3


def test_two_labels_are_enough() -> None:
    examples = few(*[("a lovely desk", "praise"), ("a broken lamp", "defect")] * 4)
    first, second = train(examples).predict(["my lovely desk", "broken"])
    assert (first.label, first.runner_up) == ("praise", "defect")
    assert (second.label, second.runner_up) == ("defect", "praise")
    assert 0.5 < first.confidence < 1


@pytest.mark.parametrize("text", ["", "   ", "漢字"])
def test_a_text_without_a_known_term_gets_no_confidence(
    classifier: Classifier, text: str
) -> None:
    assert classifier.predict([text])[0].confidence == 0


@settings(deadline=None)
@given(st.text())
def test_any_text_gets_two_different_labels_and_a_share_as_confidence(
    classifier: Classifier, text: str
) -> None:
    prediction = classifier.predict([text])[0]
    assert 0 <= prediction.confidence <= 1
    assert {prediction.label, prediction.runner_up} <= set(classifier.labels)
    assert prediction.label != prediction.runner_up


@settings(deadline=None)
@given(st.text() | texts, st.sampled_from(["billing", "praise"]))
def test_evidence_stands_word_for_word_in_the_text(
    classifier: Classifier, text: str, label: str
) -> None:
    evidence = classifier.evidence(text, label)
    assert evidence in text
    assert bool(evidence) == bool(text.strip())


def test_evidence_is_short_and_taken_from_where_the_label_shows(
    classifier: Classifier,
) -> None:
    filler = "We moved here in spring and like the town. " * 20
    text = f"{filler}Please refund the invoice that was charged twice. {filler}"
    assert "refund" in classifier.evidence(
        text, "billing"
    ) or "charged" in classifier.evidence(text, "billing")
    assert len(classifier.evidence(text, "billing").split()) <= 8


def test_evidence_cuts_no_number_in_two(classifier: Classifier) -> None:
    text = "You charged 649.00 for the invoice of the 12.03.2026, so please refund 1,298.50 at once."
    for longest in range(20, 80):
        cut = classifier.evidence(text, "billing", longest=longest)
        assert set(cut.split()) <= {word.strip(",.") for word in text.split()} | set(
            text.split()
        )


def test_an_explanation_names_words_of_the_text_strongest_first(
    classifier: Classifier,
) -> None:
    text = "Please refund the invoice. The refund is late."
    explained = classifier.explain(text, "billing")
    assert {word for word, _ in explained} <= {
        "please",
        "refund",
        "the",
        "invoice",
        "is",
        "late",
    }
    assert {"refund", "invoice"} <= {word for word, _ in explained[:3]}
    assert [score for _, score in explained] == sorted(
        (score for _, score in explained), reverse=True
    )
    assert classifier.explain(text) == classifier.explain(
        text, classifier.predict([text])[0].label
    )


def test_a_label_that_it_never_learned_is_no_label_to_explain(
    classifier: Classifier,
) -> None:
    with pytest.raises(UnknownName, match="did you mean 'praise'"):
        classifier.evidence("hello", "prais")


def test_it_knows_which_texts_it_was_trained_on(classifier: Classifier) -> None:
    assert classifier.saw(EXAMPLES[0].text.upper() + "!")
    assert not any(classifier.saw(golden.text) for golden in GOLDEN)


def test_training_needs_two_labels_with_three_examples_each() -> None:
    with pytest.raises(ConfigError, match="two labels with 3 examples each; enough: x"):
        train(few(*[("hello", "x")] * 9))
    with pytest.raises(ConfigError, match="too few examples of y; enough: x"):
        train(few(*[("hello", "x")] * 9, ("bye", "y"), ("ciao", "y")))


def test_a_label_with_too_few_examples_is_left_out_and_on_record() -> None:
    """So is one without any; the others are learned as if the rare ones were not there."""
    common = [("hello you", "x")] * 5 + [("bye now", "y")] * 5
    rare = [("ciao", "z"), ("ciao ciao", "z")]
    classifier = train(few(*common, *rare), labels=("x", "y", "z", "none"))
    assert classifier.labels == ("x", "y")
    assert classifier.metadata.left_out == ("none", "z")
    assert classifier.metadata.n == 10
    assert classifier.identity == train(few(*common)).identity
    assert classifier.identity == identity_before(few(*common, *rare))


# --- its files -----------------------------------------------------------------------------------


@pytest.fixture
def saved(classifier: Classifier, tmp_path: Path) -> Path:
    path = tmp_path / "learned" / "classify.skops"
    save(classifier, path)
    return path


def test_a_saved_classifier_predicts_the_same_after_loading(
    classifier: Classifier, saved: Path
) -> None:
    loaded, texts = load(saved), [golden.text for golden in GOLDEN]
    assert loaded.predict(texts) == classifier.predict(texts)
    assert loaded.identity == classifier.identity == read_metadata(saved).identity
    assert loaded.saw(EXAMPLES[0].text)
    assert sorted(file.name for file in saved.parent.iterdir()) == [
        "classify.json",
        "classify.skops",
    ]


def test_the_head_tells_what_was_learned(saved: Path) -> None:
    metadata = read_metadata(saved)
    assert metadata.labels == ("billing", "defect", "delivery", "praise", "question")
    assert (metadata.n, metadata.data_hash) == (len(EXAMPLES), data_hash(EXAMPLES))


def test_reading_a_head_loads_neither_weights_nor_scikit_learn(saved: Path) -> None:
    saved.unlink()
    code = (
        "import sys; from pathlib import Path; from tierwise.gateway.learned import read_metadata\n"
        "print([m for m in ('numpy', 'sklearn', 'skops', 'scipy') if m in sys.modules])\n"
        "read_metadata(Path(sys.argv[1])); print([m for m in ('numpy', 'sklearn', 'skops') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_a_classifier_of_another_scikit_learn_is_refused_with_the_remedy(
    saved: Path,
) -> None:
    edited(saved, scikit_learn="1.2.3")
    with pytest.raises(
        ConfigError,
        match=r"classify.json: trained with scikit-learn 1\.2\.3, here is .*`tierwise train",
    ):
        load(saved)


def test_a_classifier_made_by_another_recipe_is_refused(saved: Path) -> None:
    edited(saved, recipe="0: guesses")
    with pytest.raises(ConfigError, match="another version of tierwise"):
        load(saved)


def test_damaged_or_exchanged_weights_are_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    saved.write_bytes(data)
    with pytest.raises(
        ConfigError, match=r"classify.skops: damaged, or not the weights"
    ):
        load(saved)


def test_weights_that_do_not_fit_the_labels_are_refused(saved: Path) -> None:
    edited(saved, labels=["billing", "defect"])
    with pytest.raises(ConfigError, match="don't fit each other"):
        load(saved)


def test_a_missing_head_missing_weights_and_a_broken_head_are_refused(
    saved: Path,
) -> None:
    with pytest.raises(
        ConfigError,
        match=r"nothing.json: this classifier's metadata is missing; `tierwise train",
    ):
        load(saved.with_name("nothing.skops"))
    saved.unlink()
    with pytest.raises(
        ConfigError, match=r"classify.skops: this classifier's weights can't be read"
    ):
        load(saved)
    saved.with_suffix(".json").write_text('{"labels": 3}')
    with pytest.raises(
        ConfigError, match=r"classify.json: not the metadata of a classifier"
    ):
        load(saved)


def test_a_pickle_in_disguise_is_refused_and_not_run(
    saved: Path, tmp_path: Path
) -> None:
    forged(saved, pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(ConfigError, match=r"classify.skops: refused"):
        load(saved)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_holds_anything_but_strings_and_numbers_is_refused(
    saved: Path,
) -> None:
    """Types that skops does not trust, and types that it does but that we have no use for."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    for content in (Labelled("a", "b", "c"), LogisticRegression(), {"words": "x"}):
        forged(saved, skops.io.dumps(content))
        with pytest.raises(ConfigError, match=r"classify.skops: refused"):
            load(saved)
