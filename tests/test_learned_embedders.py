"""A classifier with embedders: members whose log-probabilities are added, and evidence from passages."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.classifiers import edited
from tests.kit.word_encoder import WordEncoder
from tierwise.errors import ConfigError, Misuse, UnknownName
from tierwise.evidence.training.labelled import Labelled
from tierwise.evidence.training.train import identity_before, train
from tierwise.gateway.learned.classifier import Classifier
from tierwise.gateway.learned.files import load, read_metadata, save
from tierwise.text.neighbours import Neighbours

OPENINGS = ["Hello", "Dear team", "Once more", "Sorry", "Good morning", "Hi", "Note"]
MATTERS = {
    "billing": "the invoice was charged twice",
    "delivery": "the parcel is late again",
}
EXAMPLES = [
    Labelled(f"{label}-{number}", f"{opening}, {matter}.", label)
    for label, matter in MATTERS.items()
    for number, opening in enumerate(OPENINGS)
]
GERMAN = "Guten Tag, mein Paket kommt zu spät"  # no word of an example is in it


def made(*, terms: bool, identity: str = "embedder-words") -> Classifier:
    return train(EXAMPLES, encoders={"words": WordEncoder(identity)}, terms=terms)


@pytest.fixture(scope="module")
def alone() -> Classifier:
    return made(terms=False)


@pytest.fixture(scope="module")
def both() -> Classifier:
    return made(terms=True)


def test_meaning_decides_where_no_word_is_known(
    alone: Classifier, both: Classifier
) -> None:
    """TF-IDF alone knows nothing of a text in another language."""
    for classifier in (alone, both):
        [prediction] = classifier.predict([GERMAN])
        assert prediction.label == "delivery"
        assert 0.5 < prediction.confidence < 1
    assert train(EXAMPLES).predict([GERMAN])[0].confidence < 0.7


def test_log_probabilities_are_added_and_divided_by_one_temperature(
    both: Classifier,
) -> None:
    text = "The invoice is late"
    totals = [0.0, 0.0]
    for member in both.members:
        [scores] = member.score([text], "internal")
        odds = [math.exp(score) for score in scores.values]
        for place, each in enumerate(odds):
            totals[place] += math.log(each / sum(odds)) / both.metadata.temperature
    odds = [math.exp(total) for total in totals]
    [prediction] = both.predict([text])
    assert prediction.confidence == pytest.approx(max(odds) / sum(odds))
    terms, words = both.metadata.members
    assert (terms.embedder, terms.identity) == ("", "")
    assert (words.embedder, words.identity) == ("words", "embedder-words")
    assert both.metadata.temperature > 0


def test_thresholds_and_coverage_come_from_the_combined_left_out_confidences(
    alone: Classifier, both: Classifier
) -> None:
    for classifier in (alone, both):
        points = classifier.metadata.thresholds
        assert len(points) == 40
        assert points[-1].share == 1
        confidences = [point.confidence for point in points]
        assert confidences == sorted(confidences, reverse=True)
        assert classifier.metadata.surest[0].confidence == confidences[-1]
    assert both.metadata.thresholds != alone.metadata.thresholds


def test_the_identity_covers_the_embedders_and_whether_terms_are_added(
    alone: Classifier, both: Classifier
) -> None:
    plain = train(EXAMPLES)
    others = made(terms=True, identity="embedder-other")
    identities = {each.identity for each in (plain, alone, both, others)}
    assert len(identities) == 4
    assert made(terms=True).identity == both.identity
    before = identity_before(EXAMPLES, embedders=["embedder-words"], terms=True)
    assert before == both.identity
    # what certificates of earlier versions have
    assert identity_before(EXAMPLES) == plain.identity
    assert plain.metadata.members == ()


def test_a_text_without_words_gets_no_confidence(alone: Classifier) -> None:
    for text in ("", "  \n"):
        assert alone.predict([text])[0].confidence == 0
        assert alone.evidence(text, "billing") == ""


def test_evidence_is_the_passage_that_speaks_most_for_the_label(
    alone: Classifier, both: Classifier
) -> None:
    filler = "We moved here in spring and like the town. " * 30
    text = f"{filler}Please, the invoice was charged twice. {filler}"
    for classifier in (alone, both):
        evidence = classifier.evidence(text, "billing")
        assert evidence in text
        assert "invoice" in evidence or "charged" in evidence
        assert len(evidence.split()) <= 8
        passages = classifier.explain(text, "billing")
        assert passages[0][0] in text
        assert [score for _, score in passages] == sorted(
            (score for _, score in passages), reverse=True
        )
    with pytest.raises(UnknownName, match="did you mean 'billing'"):
        alone.evidence("hello", "biling")


def test_evidence_costs_a_few_passages_and_a_short_text_none() -> None:
    encoder = WordEncoder()
    classifier = train(EXAMPLES, encoders={"words": encoder}, terms=False)
    encoder.texts.clear()
    classifier.evidence("the parcel is late", "delivery")
    assert encoder.texts == ["the parcel is late"]
    encoder.texts.clear()
    long = "one two three " * 2_000
    classifier.evidence(long, "delivery")
    assert len(encoder.texts) <= 40
    assert sum(map(len, encoder.texts)) < 1.5 * len(long)


@settings(deadline=None, max_examples=60)
@given(
    st.text()
    | st.lists(
        st.sampled_from(["the parcel", "is late", "cafe\u0301", "a" * 70, "\n", "漢字"])
    ).map(" ".join),
    st.integers(1, 90),
)
def test_evidence_is_verbatim_and_never_longer_than_allowed(
    both: Classifier, text: str, longest: int
) -> None:
    evidence = both.evidence(text, "billing", longest=longest)
    assert evidence in text
    assert len(evidence) <= longest
    assert bool(evidence) == bool(text.strip())


# --- its files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [False, True])
def test_a_saved_classifier_predicts_the_same_after_loading(
    tmp_path: Path, terms: bool
) -> None:
    classifier = made(terms=terms)
    path = tmp_path / "topics.skops"
    save(classifier, path)
    loaded = load(path, [WordEncoder()])
    texts = [GERMAN, "the invoice", "parcel", ""]
    assert loaded.predict(texts) == classifier.predict(texts)
    assert loaded.identity == classifier.identity == read_metadata(path).identity
    assert loaded.saw(EXAMPLES[0].text)
    # its embedders are not needed to look at what it saw
    unopened = load(path)
    assert unopened.saw(EXAMPLES[0].text)
    with pytest.raises(Misuse, match="without its embedders"):
        unopened.predict(texts)


def test_a_classifier_of_terms_alone_has_the_files_that_it_always_had(
    tmp_path: Path,
) -> None:
    path = tmp_path / "topics.skops"
    save(train(EXAMPLES), path)
    assert "members" not in json.loads(path.with_suffix(".json").read_text())
    assert load(path, []).predict(["parcel"]) == train(EXAMPLES).predict(["parcel"])


def test_another_embedder_than_the_trained_one_is_refused_with_the_remedy(
    tmp_path: Path,
) -> None:
    path = tmp_path / "topics.skops"
    save(made(terms=False), path)
    said = r"topics.json: trained with words.*embedder-words.*now embedder-other.*tierwise train"
    with pytest.raises(ConfigError, match=said):
        load(path, [WordEncoder("embedder-other")])
    with pytest.raises(ConfigError, match="trained with words, and the catalog names"):
        load(path, [])
    save(train(EXAMPLES), path)
    with pytest.raises(ConfigError, match="trained with no embedder"):
        load(path, [WordEncoder()])


def test_forged_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "topics.skops"
    save(made(terms=False), path)
    members = json.loads(path.with_suffix(".json").read_text())["members"]
    edited(path, members=[*members, *members])
    with pytest.raises(ConfigError, match="other parts than a classifier's numbers"):
        load(path)
    edited(path, members=[])
    with pytest.raises(ConfigError, match="another version of tierwise"):
        load(path)
    edited(path, members=members, labels=["billing"])
    with pytest.raises(ConfigError, match="don't fit each other"):
        load(path)


# --- neighbours ----------------------------------------------------------------------------------


def test_neighbours_by_vectors_are_near_in_meaning() -> None:
    by_words = Neighbours(EXAMPLES)
    by_vectors = Neighbours(EXAMPLES, WordEncoder())
    assert {each.label for each in by_vectors.nearest(GERMAN, 5)} == {"delivery"}
    assert len({each.label for each in by_words.nearest("Betrag", 14)}) == 2
    assert {each.label for each in by_vectors.nearest("Betrag", 5)} == {"billing"}
    own = EXAMPLES[0]
    assert own not in by_vectors.nearest(own.text.upper(), 14)
    assert Neighbours[Labelled]([], WordEncoder()).nearest("hello", 3) == ()
