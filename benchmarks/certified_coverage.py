"""How much of the work certificates cover: all labels in a fixed order, beside a 40/60 split.

    python -m benchmarks.certified_coverage frugalml --data ../shared/data/outcomes
    python -m benchmarks.certified_coverage banking --data ../shared/data/banking77/messages.csv
    python -m benchmarks.certified_coverage banking --features tfidf minilm+e5-small --splits 3
    python -m benchmarks.certified_coverage inbox --features tfidf e5-small tfidf+e5-small
    python -m benchmarks.certified_coverage false

Golden sets are drawn many times from labelled items; a draw that certifies nothing counts 0. "Split" is what
tierwise did before: the threshold is fitted on 40 % of the golden set and certified on the rest, with half of
alpha, as the plain candidate had the other half. "Fixed order" is what `certify` does at a first look, which
may spend .03 of .05. A certificate is false if what it keeps misses the floor on all items.

`false` draws from 12 populations in which nothing should be certified, half of them with training answers that
are 4 points too good, for users who look once, and for users who look again with more labels, at other floors
and with more candidates.

`--features` are those of the classifiers: tfidf, embedders of the catalog, or several joined by `+`. Their
weights have to be here (`tierwise fetch`); vectors are kept in .tierwise/.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

import numpy
from scipy.special import bdtr

from benchmarks.vectors import kept_encoders
from tierwise.evidence.certify.levels import alpha_of_look
from tierwise.evidence.certify.thresholds import (
    AtThreshold,
    Foretold,
    p_value,
    starts_for,
    widest_along,
    widest_shown,
)
from tierwise.evidence.training.labelled import Labelled, load_labelled
from tierwise.evidence.training.train import train
from tierwise.gateway.learned.classifier import Classifier
from tierwise.policy.certificates import ALPHA
from tierwise.steps.examples import load_golden

DATA = Path("../shared/data")
SIZES = (200, 400, 800, 1_600)
FLOORS = (0.8, 0.85, 0.9, 0.95, 0.97)
STRICT = (0.0005, 0.005)  # levels that the split tried first
LOOKS = (200, 400, 800)  # labels at each look of a patient user


@dataclass(frozen=True)
class Items:
    """Answers of one model: the confidence of each, and whether it is right (1.0 or 0.0)."""

    confidence: Any
    right: Any

    def drawn(self, places: Any) -> Items:
        return Items(self.confidence[places], self.right[places])

    def kept(self, threshold: float) -> Items:
        return self.drawn(self.confidence >= threshold)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["frugalml", "banking", "inbox", "false"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--features", nargs="+", default=["tfidf"])
    parser.add_argument(
        "--splits", type=int, default=6, help="how often classifiers are trained"
    )
    parser.add_argument("--learned-from", type=int, help="labels to train on")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = numpy.random.default_rng(options.seed)
    if options.what == "frugalml":
        frugalml(options.data or DATA / "outcomes", options.draws, random)
    elif options.what == "banking":
        messages = load_labelled(options.data or DATA / "banking77/messages.csv")
        learned_from = options.learned_from or 2_000
        design = Design(
            learned_from, (400, 1_000), (0.9, 0.95), options.draws, options.splits
        )
        classifiers(messages, design, options.features, random)
    elif options.what == "inbox":
        learned_from = options.learned_from or 130
        design = Design(
            learned_from, (185, 530), (0.7, 0.8, 0.9), options.draws, options.splits
        )
        classifiers(inbox(), design, options.features, random)
    else:
        false_certificates(options.draws, random)


# --- models with a confidence, of which nothing is known beforehand -------------------------------


def frugalml(folder: Path, draws: int, random: Any) -> None:
    """Print the certified coverage of the sentiment services, by the number of labels."""
    ratios: dict[int, list[float]] = defaultdict(list)
    false: dict[int, list[float]] = defaultdict(list)
    print("| service | floor | all items | labels | split | fixed order | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, items in services(folder):
        # the two floors above what it does on everything: below, no threshold is needed
        higher = [floor for floor in FLOORS if floor > items.right.mean()]
        for floor in higher[:2]:
            possible = coverage_knowing_all(items, floor)
            if possible < 0.05:
                continue
            for size in SIZES:
                before = []
                after = []
                for _ in range(draws):
                    places = random.choice(len(items.right), size, replace=False)
                    golden = items.drawn(places)
                    before.append(by_split(golden, floor, random))
                    after.append(by_e_process(golden, floor, alpha_of_look(1)))
                    false[size].append(is_false(items, after[-1], floor))
                old = mean(coverage(items, threshold) for threshold in before)
                new = mean(coverage(items, threshold) for threshold in after)
                # where the split certifies nothing in any draw there is no ratio
                ratio = new / old if old else math.inf
                if new > 0.01:
                    ratios[size].append(ratio)
                print(
                    f"| {name} | {floor:g} | {possible:.2f} | {size} | {old:.2f} | {new:.2f} "
                    f"| {ratio:.2f} |"
                )
    print("\n| labels | settings | median ratio | false certificates |")
    print("|---|---|---|---|")
    for size in SIZES:
        print(
            f"| {size} | {len(ratios[size])} | {median(ratios[size]):.2f} | {mean(false[size]):.4f} |"
        )
    every = [ratio for some in ratios.values() for ratio in some]
    print(f"| all | {len(every)} | {median(every):.2f} | |")


def services(folder: Path) -> Iterator[tuple[str, Items]]:
    for path in sorted(folder.glob("frugalml_*.csv.gz")):
        rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
        with gzip.open(path, "rt") as file:
            for row in csv.DictReader(file):
                rows[row["model"]].append(
                    (float(row["confidence"]), float(row["score"]))
                )
        data = path.name.removeprefix("frugalml_").removesuffix(".csv.gz")
        for model, pairs in rows.items():
            table = numpy.array(pairs)
            yield f"{data} {model}", Items(table[:, 0], table[:, 1])


# --- trained classifiers -------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """How many messages are learned from, and how many golden ones are drawn, how often."""

    learned_from: int
    sizes: Sequence[int]  # of the golden set
    floors: Sequence[float]
    draws: int
    splits: int


def classifiers(
    messages: Sequence[Labelled], design: Design, features: Sequence[str], random: Any
) -> None:
    """Print the certified coverage of classifiers, over several splits of the messages."""
    found: dict[tuple[str, float, int], list[tuple[float, ...]]] = defaultdict(list)
    accuracies: dict[str, list[float]] = defaultdict(list)
    for number in range(design.splits):
        order = random.permutation(len(messages))
        learned = [messages[place] for place in order[: design.learned_from]]
        rest = [messages[place] for place in order[design.learned_from :]]
        # the same golden sets for all features
        seed = int(random.integers(2**32))
        for name in features:
            started = perf_counter()
            classifier = trained(learned, name)
            items = answers(classifier, rest)
            accuracies[name].append(float(items.right.mean()))
            print(
                f"split {number + 1} of {design.splits}, {name}: {items.right.mean():.3f} right, "
                f"{perf_counter() - started:.0f} s, C {regularisations(classifier)}",
                flush=True,
            )
            foretold = classifier_foretells(classifier)
            draws = numpy.random.default_rng(seed)
            for (floor, size), rows in drawn(items, foretold, design, draws).items():
                found[name, floor, size] += rows
    print(
        "\n| features | floor | golden labels | right | split | fixed order | knowing all |"
    )
    print("|---|---|---|---|---|---|---|")
    for (name, floor, size), rows in sorted(
        found.items(), key=lambda pair: pair[0][1:]
    ):
        old, new, possible = (mean(column) for column in zip(*rows, strict=True))
        right = mean(accuracies[name])
        print(
            f"| {name} | {floor:g} | {size} | {right:.3f} | {old:.2f} | {new:.2f} "
            f"| {possible:.2f} |"
        )


def regularisations(classifier: Classifier) -> str:
    metadata = classifier.metadata
    if not metadata.members:
        return f"{metadata.regularisation:g}"
    return ", ".join(f"{member.regularisation:g}" for member in metadata.members)


def drawn(
    items: Items, foretold: Sequence[Foretold], design: Design, random: Any
) -> dict[tuple[float, int], list[tuple[float, ...]]]:
    """Return the coverage by the split, in fixed order, and at best, for each golden set."""
    found: dict[tuple[float, int], list[tuple[float, ...]]] = defaultdict(list)
    everything = len(items.right)
    for floor in design.floors:
        possible = coverage_knowing_all(items, floor)
        for wanted in design.sizes:
            size = min(wanted, everything)
            for _ in range(max(1, design.draws // design.splits)):
                # with replacement where the golden set is all there is
                places = random.choice(
                    everything, size, replace=size > everything * 0.8
                )
                golden = items.drawn(places)
                old = by_split(golden, floor, random)
                new = by_walks(foretold, golden, floor, alpha_of_look(1))
                found[floor, size].append(
                    (coverage(items, old), coverage(items, new), possible)
                )
    return found


def trained(examples: Sequence[Labelled], features: str) -> Classifier:
    names = features.split("+")
    embedders = [name for name in names if name != "tfidf"]
    return train(examples, encoders=kept_encoders(embedders), terms="tfidf" in names)


def inbox() -> list[Labelled]:
    messages = []
    for name in ("classify-examples.jsonl", "classify.jsonl"):
        for example in load_golden(Path("golden") / name).examples:
            label = str(example.expected["label"])
            messages.append(Labelled(f"{name}:{example.id}", example.text, label))
    return messages


def answers(classifier: Classifier, messages: Sequence[Labelled]) -> Items:
    predictions = classifier.predict([message.text for message in messages])
    right = [
        prediction.label == message.label
        for prediction, message in zip(predictions, messages, strict=True)
    ]
    confidence = numpy.array([prediction.confidence for prediction in predictions])
    return Items(confidence, numpy.array(right, dtype=float))


def classifier_foretells(classifier: Classifier) -> list[Foretold]:
    points = classifier.metadata.thresholds
    foretold = [
        Foretold(point.confidence, point.share, point.accuracy) for point in points
    ]
    return [*foretold, Foretold(None, 1.0, points[-1].accuracy)]


# --- false certificates --------------------------------------------------------------------------


def false_certificates(draws: int, random: Any) -> None:
    """Print how often populations in which nothing should be certified get a certificate."""
    print(
        "| training answers | accuracy | walks, once | e-process, once | a patient user |"
    )
    print("|---|---|---|---|---|")
    rates: dict[str, list[float]] = defaultdict(list)
    for optimism in (0.0, 0.04):
        for gap in (0.001, 0.01):
            for slope in (0.0, 0.02, 0.1):
                once = []
                along = []
                patient = []
                for _ in range(draws):
                    foretold = foretold_by(slope, gap, optimism, random)
                    golden = population(1_000, slope, gap, random)
                    first = golden.drawn(slice(0, 400))
                    level = alpha_of_look(1)
                    once.append(by_walks(foretold, first, 0.9, level) is not None)
                    along.append(by_e_process(first, 0.9, level) is not None)
                    patient.append(ever_certified(foretold, slope, gap, golden, random))
                cells = (mean(once), mean(along), mean(patient))
                for name, rate in zip(("once", "along", "patient"), cells, strict=True):
                    rates[name].append(rate)
                told = "4 points too good" if optimism else "true"
                shape = f"{0.9 - gap - slope:.3f} to {0.9 - gap:.3f}"
                print(
                    f"| {told} | {shape} | {cells[0]:.3f} | {cells[1]:.3f} | {cells[2]:.3f} |"
                )
    means = " | ".join(f"{mean(some):.4f}" for some in rates.values())
    print(f"| all | | {means} |")


def ever_certified(
    foretold: Sequence[Foretold], slope: float, gap: float, golden: Items, random: Any
) -> bool:
    """Return True if a user who looks six times gets any certificate.

    They look at 200, 400 and 800 labels, then at a floor of .95, and with two more candidates.
    """
    for look, size in enumerate(LOOKS, 1):
        some = golden.drawn(slice(0, size))
        if by_walks(foretold, some, 0.9, alpha_of_look(look)) is not None:
            return True
    some = golden.drawn(slice(0, LOOKS[-1]))
    if by_walks(foretold, some, 0.95, alpha_of_look(4)) is not None:
        return True
    for look in (5, 6):
        other = population(LOOKS[-1], slope, gap, random)
        if by_e_process(other, 0.9, alpha_of_look(look)) is not None:
            return True
    return False


def population(size: int, slope: float, gap: float, random: Any) -> Items:
    """Return answers whose accuracy falls with the confidence, and is below .9 everywhere."""
    confidence = random.random(size)
    accuracy = 0.9 - gap - slope * (1 - confidence)
    right = random.random(size) < accuracy
    return Items(confidence, right.astype(float))


def foretold_by(
    slope: float, gap: float, optimism: float, random: Any
) -> list[Foretold]:
    """Return what 500 left-out training answers foretell, perhaps too well."""
    answers = population(500, slope, gap - optimism, random)
    order = numpy.argsort(-answers.confidence)
    foretold = []
    for place in range(1, 41):
        most = order[: round(500 * place / 40)]
        threshold = float(answers.confidence[most[-1]])
        foretold.append(
            Foretold(threshold, place / 40, float(answers.right[most].mean()))
        )
    return [*foretold, Foretold(None, 1.0, foretold[-1].accuracy)]


# --- the procedures ------------------------------------------------------------------------------


def by_split(golden: Items, floor: float, random: Any) -> float | None:
    """Return the threshold of the 40/60 split; minus infinity where everything is certified."""
    n = len(golden.right)
    level = ALPHA / 2
    if bdtr(n - golden.right.sum(), n, 1 - floor) <= level:
        return -math.inf
    is_fit = random.random(n) < 0.4
    fit = golden.drawn(is_fit)
    rest = golden.drawn(~is_fit)
    # the last level shows the floor on more items of the same kind
    for alpha in (*STRICT, level, level ** (len(fit.right) / max(1, len(rest.right)))):
        threshold = fit_threshold(fit.confidence, fit.right, floor, alpha)
        if threshold is None:
            continue
        kept = rest.kept(threshold)
        tested = AtThreshold(threshold, len(kept.right), int((1 - kept.right).sum()))
        return threshold if p_value(tested, floor) <= level else None
    return None


def fit_threshold(
    confidence: Any, right: Any, floor: float, alpha: float = ALPHA
) -> float | None:
    """Return the lowest threshold whose answers show the floor, on the items it is fitted on."""
    order = numpy.argsort(-numpy.asarray(confidence), kind="stable")
    ranked = numpy.asarray(confidence)[order]
    errors = numpy.cumsum(1 - numpy.asarray(right, dtype=float)[order])
    n = numpy.arange(1, len(ranked) + 1)
    # no threshold lies between two equal confidences
    last_of_equals = numpy.append(ranked[:-1] != ranked[1:], [True] * bool(len(ranked)))
    shown = numpy.nonzero((bdtr(errors, n, 1 - floor) <= alpha) & last_of_equals)[0]
    return float(ranked[shown[-1]]) if len(shown) else None


def by_e_process(golden: Items, floor: float, level: float) -> float | None:
    """Return the threshold of a language model, as `certify` finds it."""
    n = len(golden.right)
    half = level / 2
    if bdtr(n - golden.right.sum(), n, 1 - floor) <= half:
        return -math.inf
    return widest_along(golden.confidence.tolist(), golden.right.tolist(), floor, half)


def by_walks(
    foretold: Sequence[Foretold], golden: Items, floor: float, level: float
) -> float | None:
    """Return the threshold of a trained classifier, as `certify` finds it."""
    tested = []
    for point in foretold:
        threshold = -math.inf if point.threshold is None else point.threshold
        kept = golden.kept(threshold)
        errors = int((1 - kept.right).sum())
        tested.append(AtThreshold(threshold, len(kept.right), errors))
    starts = starts_for(foretold, len(golden.right), floor, level)
    place = widest_shown(tested, starts, floor, level)
    return None if place is None else tested[place].threshold


def coverage(items: Items, threshold: float | None) -> float:
    if threshold is None:
        return 0.0
    return float((items.confidence >= threshold).mean())


def is_false(items: Items, threshold: float | None, floor: float) -> bool:
    if threshold is None:
        return False
    # numpy's truth values cannot be averaged by `statistics`
    return bool(items.kept(threshold).right.mean() < floor)


def coverage_knowing_all(items: Items, floor: float) -> float:
    """Return the most that a threshold could keep if all answers were known."""
    order = numpy.argsort(-items.confidence, kind="stable")
    accuracy = numpy.cumsum(items.right[order]) / numpy.arange(1, len(order) + 1)
    enough = numpy.nonzero(accuracy >= floor)[0]
    return float((enough[-1] + 1) / len(order)) if len(enough) else 0.0


if __name__ == "__main__":
    main()
