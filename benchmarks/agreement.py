"""What a job costs where a classifier learns from a strong model, beside always asking that model.

    python -m benchmarks.agreement --data ../shared/data/banking77/messages.csv
    python -m benchmarks.agreement --features tfidf minilm+e5-small --draws 200 --splits 2

Simulated: the teacher says what people said, and something else in 3 % of the messages. Documents are set aside,
chosen, learned from and certified by the code of `tierwise distil`. A sample to certify with is drawn many times
from the documents that were set aside, each time with replacement, so that the agreement on all of them is known.
A certificate is a violation if what it keeps agrees less often than the agreement floor says.

The cost is that of a job of 10,000 documents as a share of asking the teacher for each: the labels, and what the
classifier does not keep. A draw that certifies nothing pays for everything. "Delivered" is the share of right
answers by people's labels. `--features` are as in `benchmarks.certified_coverage`; vectors are kept in .tierwise/.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy

from benchmarks.certified_coverage import (
    Items,
    by_walks,
    classifier_foretells,
    coverage,
    is_false,
)
from benchmarks.vectors import kept_encoders
from tierwise.evidence.certify.levels import alpha_of_look
from tierwise.evidence.distil.pool import SET_ASIDE
from tierwise.evidence.distil.select import (
    at_random,
    doubtful_and_random,
    unlike_each_other,
)
from tierwise.evidence.training.labelled import Labelled, load_labelled
from tierwise.evidence.training.train import train
from tierwise.gateway.learned.classifier import Classifier
from tierwise.records import Document

JOB = 10_000  # documents
ROUNDS = 5


@dataclass(frozen=True)
class Design:
    """What is simulated."""

    learn: int
    certify: int
    wrong: float  # share of the teacher's labels
    floors: Sequence[float]
    draws: int
    splits: int


@dataclass(frozen=True)
class SetAside:
    """The documents that were set aside: answers of the classifier, and who is right."""

    agrees: Items
    classifier_right: Any
    teacher_right: Any


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/banking77/messages.csv")
    )
    parser.add_argument("--features", nargs="+", default=["tfidf"])
    parser.add_argument("--floors", nargs="+", type=float, default=[0.9, 0.95])
    parser.add_argument("--learn", type=int, default=1_500)
    parser.add_argument("--certify", type=int, default=800)
    parser.add_argument("--wrong", type=float, default=0.03)
    parser.add_argument("--draws", type=int, default=40, help="in all splits together")
    parser.add_argument(
        "--splits", type=int, default=1, help="how often a classifier learns"
    )
    parser.add_argument(
        "--at-random", action="store_true", help="also learn from random documents"
    )
    options = parser.parse_args()
    design = Design(
        options.learn,
        options.certify,
        options.wrong,
        options.floors,
        options.draws,
        options.splits,
    )
    messages = load_labelled(options.data)
    print(
        f"{len(messages)} messages; the teacher is wrong in {design.wrong:.0%}; {design.learn} "
        f"labels to learn from, {design.certify} to certify with; {design.draws} draws"
    )
    print(
        "| features | learns from | floor | certified | kept | agreement of the kept | delivered "
        "| teacher alone | cost | violations |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for features in options.features:
        ways = ["chosen", "random"] if options.at_random else ["chosen"]
        for way in ways:
            report(messages, design, features, way)


def report(
    messages: Sequence[Labelled], design: Design, features: str, way: str
) -> None:
    """Print a line for each floor."""
    started = perf_counter()
    sides = [
        set_aside(messages, design, features, way, split)
        for split in range(design.splits)
    ]
    seconds = perf_counter() - started
    for floor in design.floors:
        kept, agreement, delivered, alone, costs = [], [], [], [], []
        violations = 0
        for split, (side, foretold) in enumerate(sides):
            random = numpy.random.default_rng(1_000 + split)
            for _ in range(design.draws // design.splits):
                places = random.integers(0, len(side.agrees.right), design.certify)
                threshold = by_walks(
                    foretold, side.agrees.drawn(places), floor, alpha_of_look(1)
                )
                share = coverage(side.agrees, threshold)
                kept.append(share)
                violations += is_false(side.agrees, threshold, floor)
                if threshold is not None:
                    agreement.append(side.agrees.kept(threshold).right.mean())
                delivered.append(_delivered(side, threshold))
                alone.append(side.teacher_right.mean())
                labels = design.learn + design.certify
                costs.append((labels + (JOB - labels) * (1 - share)) / JOB)
        certified = mean(share > 0 for share in kept)
        agreed = f"{mean(agreement):.3f}" if agreement else "-"
        print(
            f"| {features} | {way} | {floor:g} | {certified:.2f} | {mean(kept):.2f} | {agreed} "
            f"| {mean(delivered):.3f} | {mean(alone):.3f} | {mean(costs):.2f} "
            f"| {violations} of {len(kept)} |",
            flush=True,
        )
    print(f"<!-- {seconds:.0f} s to learn -->", flush=True)


def _delivered(side: SetAside, threshold: float | None) -> float:
    """Return the share of right answers: the classifier's where it is sure, else the teacher's."""
    limit = math.inf if threshold is None else threshold
    keeps = side.agrees.confidence >= limit
    right = numpy.where(keeps, side.classifier_right, side.teacher_right)
    return float(right.mean())


def set_aside(
    messages: Sequence[Labelled], design: Design, features: str, way: str, split: int
) -> tuple[SetAside, Any]:
    """Let a classifier learn from the teacher, and return its answers on what was set aside."""
    random = numpy.random.default_rng(split)
    said = teacher_says(messages, design.wrong, random)
    # as `distil` does by a hash, here another for each split
    is_aside = random.random(len(messages)) < SET_ASIDE
    pool = [
        _document(message)
        for message, aside in zip(messages, is_aside, strict=True)
        if not aside
    ]
    if way == "random":
        chosen = at_random(pool, design.learn, f"split {split}")
        classifier = learn(chosen, said, features)
    else:
        classifier = learn_in_rounds(pool, said, design.learn, features)
    measured = [
        message for message, aside in zip(messages, is_aside, strict=True) if aside
    ]
    predictions = classifier.predict(message.text for message in measured)
    label = [prediction.label for prediction in predictions]
    side = SetAside(
        agrees=Items(
            numpy.array([prediction.confidence for prediction in predictions]),
            numpy.array(
                [
                    float(given == said[message.id])
                    for given, message in zip(label, measured, strict=True)
                ]
            ),
        ),
        classifier_right=numpy.array(
            [
                given == message.label
                for given, message in zip(label, measured, strict=True)
            ]
        ),
        teacher_right=numpy.array(
            [said[message.id] == message.label for message in measured]
        ),
    )
    return side, classifier_foretells(classifier)


def teacher_says(
    messages: Sequence[Labelled], wrong: float, random: Any
) -> dict[str, str]:
    """Return the teacher's labels by id: people's, but for a share of them."""
    labels = sorted({message.label for message in messages})
    said = {}
    for message in messages:
        said[message.id] = message.label
        if random.random() < wrong:
            others = [label for label in labels if label != message.label]
            said[message.id] = others[random.integers(len(others))]
    return said


def learn_in_rounds(
    pool: Sequence[Document], said: dict[str, str], size: int, features: str
) -> Classifier:
    """Learn from documents that are chosen as `distil` chooses them."""
    encoders = _encoders(features)
    first = next(iter(encoders.values()), None)
    chosen = unlike_each_other(pool, math.ceil(size / ROUNDS), first)
    while len(chosen) < size:
        classifier = learn(chosen, said, features)
        taken = {document.id for document in chosen}
        rest = [document for document in pool if document.id not in taken]
        predictions = classifier.predict(document.text for document in rest)
        confidences = [prediction.confidence for prediction in predictions]
        more = min(math.ceil(size / ROUNDS), size - len(chosen))
        chosen += doubtful_and_random(rest, confidences, more, f"round {len(chosen)}")
    return learn(chosen, said, features)


def learn(
    documents: Sequence[Document], said: dict[str, str], features: str
) -> Classifier:
    """Train a classifier on the teacher's labels of some documents."""
    return train(
        [
            Labelled(document.id, document.text, said[document.id])
            for document in documents
        ],
        encoders=_encoders(features),
        terms="tfidf" in features.split("+"),
    )


_KEPT: dict[str, Any] = {}


def _encoders(features: str) -> dict[str, Any]:
    names = [name for name in features.split("+") if name != "tfidf"]
    for name in names:
        if name not in _KEPT:
            _KEPT.update(kept_encoders([name]))
    return {name: _KEPT[name] for name in names}


def _document(message: Labelled) -> Document:
    return Document(id=message.id, text=message.text, sensitivity="internal")


if __name__ == "__main__":
    main()
