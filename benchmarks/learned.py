"""What a classifier learned from labels is worth, on real customer messages.

    python -m benchmarks.learned --data ../shared/data/banking77/messages.csv

Every number comes from messages that nothing was trained on: five folds, each measured on its fifth. For the
traffic that a classifier keeps, each fifth is halved many times; the threshold is fitted on one half, and what
it keeps and delivers is counted on the other.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from time import perf_counter

from benchmarks.certified_coverage import fit_threshold
from tierwise.evidence.training.labelled import Labelled, load_labelled, split
from tierwise.evidence.training.train import LEAST_PER_LABEL, train
from tierwise.gateway.learned.classifier import Prediction
from tierwise.policy.certificates import lower_bound
from tierwise.text.neighbours import Neighbours

SIZES = (770, 1500, 2400)
HALVES = 20
SHOWN = 8


@dataclass(frozen=True)
class Measured:
    """One classifier and one set of neighbours on messages that they did not see."""

    predictions: Sequence[Prediction]
    right: Sequence[bool]
    train_s: float
    predict_s: float  # a document
    first_right: float
    among_shown: float
    nearest_s: float  # a document


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--floor", type=float, default=0.95)
    parser.add_argument(
        "--folds", type=int, default=5, help="how many of the five folds to run"
    )
    options = parser.parse_args()
    runs: dict[int, list[Measured]] = defaultdict(list)
    messages = list(load_labelled(options.data))
    for learned_from, held_out in folds(messages, options.folds):
        for size in SIZES:
            runs[size].append(measure(some_of_each(learned_from, size), held_out))
    report(runs, options.floor)


def folds(
    messages: list[Labelled], most: int
) -> Iterator[tuple[list[Labelled], list[Labelled]]]:
    """Four fifths to learn from and the fifth to measure on, up to five times."""
    random.Random(0).shuffle(messages)
    for number in range(most):
        held_out = messages[number::5]
        yield (
            [m for position, m in enumerate(messages) if position % 5 != number],
            held_out,
        )


def some_of_each(messages: Sequence[Labelled], size: int) -> list[Labelled]:
    """The first `size` messages, but of every label as many as training needs."""
    seen: Counter[str] = Counter()
    needed: list[Labelled] = []
    others: list[Labelled] = []
    for message in messages:
        seen[message.label] += 1
        (needed if seen[message.label] <= LEAST_PER_LABEL else others).append(message)
    return (needed + others)[:size]


def measure(examples: list[Labelled], held_out: list[Labelled]) -> Measured:
    started = perf_counter()
    classifier = train(examples)
    train_s = perf_counter() - started
    texts = [message.text for message in held_out]
    started = perf_counter()
    predictions = classifier.predict(texts)
    predict_s = (perf_counter() - started) / len(texts)
    neighbours = Neighbours(examples)
    started = perf_counter()
    shown = [neighbours.nearest(text, SHOWN) for text in texts]
    nearest_s = (perf_counter() - started) / len(texts)
    return Measured(
        predictions=predictions,
        right=[p.label == m.label for p, m in zip(predictions, held_out, strict=True)],
        train_s=train_s,
        predict_s=predict_s,
        first_right=mean(
            near[-1].label == m.label for near, m in zip(shown, held_out, strict=True)
        ),
        among_shown=mean(
            m.label in {e.label for e in near}
            for near, m in zip(shown, held_out, strict=True)
        ),
        nearest_s=nearest_s,
    )


def surest(run: Measured, share: float) -> float:
    """Accuracy on the share that the classifier is surest of."""
    ranked = sorted(
        zip(run.predictions, run.right, strict=True),
        key=lambda pair: -pair[0].confidence,
    )
    return mean(ok for _, ok in ranked[: round(share * len(ranked))])


def delivered(run: Measured, floor: float) -> Iterator[tuple[int, int, int] | None]:
    """For many halvings: how many are measured, answered and right; None where no threshold was found."""
    numbered = [Labelled(str(n), str(n), "") for n in range(len(run.right))]
    for half in range(HALVES):
        fit, rest = (
            [int(item.id) for item in part]
            for part in split(numbered, 0.5, f"half {half}")
        )
        threshold = fit_threshold(
            [run.predictions[n].confidence for n in fit],
            [run.right[n] for n in fit],
            floor,
        )
        if threshold is None:
            yield None
            continue
        answered = [
            run.right[n] for n in rest if run.predictions[n].confidence >= threshold
        ]
        yield len(rest), len(answered), sum(answered)


def report(runs: dict[int, list[Measured]], floor: float) -> None:
    """Print the three tables in Markdown."""
    print(
        "| labels | accuracy | stated | its surest 75 % / 50 % | a document | training |"
    )
    print("|---|---|---|---|---|---|")
    for size, some in runs.items():
        accuracy = mean(mean(run.right) for run in some)
        stated = mean(p.confidence for run in some for p in run.predictions)
        sure = " / ".join(
            f"{mean(surest(run, share) for run in some):.3f}" for share in (0.75, 0.5)
        )
        speed = mean(run.predict_s for run in some) * 1e6
        seconds = mean(run.train_s for run in some)
        print(
            f"| {size} | {accuracy:.3f} | {stated:.3f} | {sure} | {speed:.0f} us | {seconds:.0f} s |"
        )
    print(
        f"\n| labels | threshold found | traffic kept | delivered | at least {floor:g} | certified |"
    )
    print("|---|---|---|---|---|---|")
    for size, some in runs.items():
        tries = [result for run in some for result in delivered(run, floor)]
        found = [result for result in tries if result is not None and result[1]]
        if not found:
            print(f"| {size} | 0 of {len(tries)} | | | | |")
            continue
        kept = sum(answered for _, answered, _ in found) / sum(n for n, _, _ in found)
        right = sum(ok for _, _, ok in found) / sum(
            answered for _, answered, _ in found
        )
        met = sum(ok / answered >= floor for _, answered, ok in found)
        proven = sum(
            lower_bound(answered - ok, answered) >= floor for _, answered, ok in found
        )
        print(
            f"| {size} | {len(found)} of {len(tries)} | {kept:.3f} | {right:.3f} | {met} | {proven} |"
        )
    print(
        f"\n| labels | the nearest one is right | the right label is among {SHOWN} | a document |"
    )
    print("|---|---|---|---|")
    for size, some in runs.items():
        first = mean(run.first_right for run in some)
        among = mean(run.among_shown for run in some)
        print(
            f"| {size} | {first:.3f} | {among:.3f} | {mean(run.nearest_s for run in some) * 1e6:.0f} us |"
        )


if __name__ == "__main__":
    main()
