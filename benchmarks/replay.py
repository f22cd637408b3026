"""What the replayed router recovers of the quality gap, beside chance, simpler estimates and the oracle.

    python -m benchmarks.replay mmlu --data ../shared/data/outcomes --labels 1500 --seeds 10
    python -m benchmarks.replay gsm8k --data ../shared/data/outcomes --seeds 20
    python -m benchmarks.replay frugalml --data ../shared/data/outcomes --seeds 10

For each seed the items are halved by chance; labels are drawn from one half, everything is measured on the
other. All estimates learn from the same labels, and thresholds are fixed on them.

`mmlu` and `gsm8k` (two models, recorded by RouteLLM): CPT50, CPT80 and USD50 are better when lower, APGR when
higher; the texts of GSM8K are in its file. The last row but one of MMLU learns from every item of the first
half: what more labels would still bring.

`frugalml` (four services a set, each with a confidence): what is saved of the best service's cost at the floor
that reached its quality on the labels, and the difference in quality on the other half.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy

from tierwise.evidence.replay import (
    CurveMeasures,
    OutcomeTable,
    fit,
    measure,
    read_outcomes,
    read_texts,
    replay,
    sweep,
    true_quality,
    with_terms,
)

# RouteLLM's best published row, each column the best of its own (CPT50, CPT80, APGR); on the whole set
PUBLISHED_ROUTELLM = {
    "mmlu": ("35.4", "70.3", "0.603"),
    "gsm8k": ("33.6", "63.3", "0.622"),
}
# FrugalML's saving at the best service's accuracy (Chen and others 2020)
PUBLISHED_FRUGALML = {"yelp": 0.24, "imdb": 0.24, "waimai": 0.60, "shop": 0.46}
FILES = {"mmlu": "routellm_mmlu_train.csv.gz", "gsm8k": "routellm_gsm8k.csv.gz"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", nargs="?", choices=["mmlu", "gsm8k", "frugalml"], default="mmlu"
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder, or file")
    parser.add_argument("--labels", type=int, help="default: 1500, or half of the set")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    if options.what == "frugalml":
        frugalml(options.data, options.labels, options.seeds)
        return
    path = file_at(options.data, FILES[options.what])
    outcomes = read_outcomes(path)
    if options.what == "gsm8k":
        (outcomes,) = with_terms(path, read_texts(path), outcomes)
    labels = options.labels or min(1500, len(outcomes) // 2)
    found: dict[str, list[CurveMeasures]] = defaultdict(list)
    for seed in range(options.seeds):
        for policy, measures in compare(outcomes, labels, seed).items():
            found[policy].append(measures)
    print(
        f"| policy, {labels} labels | CPT50 | CPT80 | APGR | USD50 |\n|---|---|---|---|---|"
    )
    published = " | ".join(PUBLISHED_ROUTELLM[options.what])
    print(f"| RouteLLM's best published row, per column | {published} | |")
    for policy, runs in found.items():
        print(f"| {policy} | {' | '.join(cells(runs))} |")


def file_at(data: Path, name: str) -> Path:
    """The file, or that of this name in the folder."""
    path = data / name if data.is_dir() else data
    if not path.exists():
        raise SystemExit(
            f"skipped: {path} is not there; --data names a folder of recorded outcomes"
        )
    return path


def frugalml(data: Path, labels: int | None, seeds: int) -> None:
    """What is saved of the best service's cost, at its quality on the labels."""
    print(
        "| set | items | labels | saved, held out | quality less the best service's | asked in turn "
        "| saved, FrugalML's paper |\n|---|---|---|---|---|---|---|"
    )
    for name, published in PUBLISHED_FRUGALML.items():
        outcomes = read_outcomes(file_at(data, f"frugalml_{name}.csv.gz"))
        half = len(outcomes) // 2
        saved = []
        differences = []
        orders: Counter[str] = Counter()
        for seed in range(seeds):
            random = numpy.random.default_rng(seed)
            order = random.permutation(len(outcomes)).tolist()
            first = outcomes.part(order[:half])
            on = outcomes.part(order[half:])
            found = replay(first, on, labels=labels, seed=seed).at_strongest
            saved.append(found.saved or 0.0)
            differences.append(found.point.quality - found.strongest.quality)
            orders[" > ".join(found.models)] += 1
        [(usual, times)] = orders.most_common(1)
        print(
            f"| {name.upper()} | {len(outcomes)} | {labels or half} "
            f"| {mean(saved):.1%} ± {spread(saved):.1%} "
            f"| {mean(differences):+.4f} ± {spread(differences):.4f} "
            f"| {usual} ({times} of {seeds}) | {published:.0%} |",
            flush=True,
        )


def spread(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def compare(outcomes: OutcomeTable, labels: int, seed: int) -> dict[str, CurveMeasures]:
    """Every policy on one half of the items, learned from labels in the other."""
    random = numpy.random.default_rng(seed)
    order = random.permutation(len(outcomes)).tolist()
    first = outcomes.part(order[: len(order) // 2])
    on = outcomes.part(order[len(order) // 2 :])
    labelled = first.draw(min(labels, len(first)), seed)
    estimate = fit(replace(labelled, terms=None))
    beliefs = {
        "random": of_two(on, random.random(len(on))),
        "prompt length alone, the longest go up": of_two(on, -on.prompt_tokens),
        "table by step": of_two(on, table(labelled, on)),
        "**tierwise**": estimate.quality(on),
        "**tierwise, --per-usd**": estimate.worth(on),
    }
    if labelled.terms is not None:
        with_texts = fit(labelled)
        beliefs["**tierwise, --texts**"] = with_texts.quality(on)
        beliefs["**tierwise, --texts --per-usd**"] = with_texts.worth(on)
    if len(labelled) < len(first):
        whole = fit(first)
        beliefs[f"tierwise, all {len(first)} items as labels"] = whole.quality(on)
    beliefs["oracle"] = true_quality(on, len(estimate.candidates))
    return {name: measure(sweep(quality, on)) for name, quality in beliefs.items()}


def of_two(on: OutcomeTable, quality: Any) -> Any:
    """A belief about the cheapest model, as one about the cheapest and the dearest."""
    if len(on.models) != 2:
        raise SystemExit("this benchmark compares two models; the file has more")
    return numpy.column_stack([quality, numpy.full(len(on), max(1.0, quality.max()))])


def table(labelled: OutcomeTable, on: OutcomeTable) -> Any:
    """The mean difference by step, as it is; for a step without labels, that of all."""
    differences = 1 + labelled.scores[:, 0] - labelled.scores[:, 1]
    by_step: dict[str, list[float]] = defaultdict(list)
    for step, difference in zip(labelled.steps, differences, strict=True):
        by_step[step].append(difference)
    return numpy.array(
        [numpy.mean(by_step.get(step, differences)) for step in on.steps]
    )


def cells(runs: list[CurveMeasures]) -> list[str]:
    """Mean and standard deviation over the seeds; shares in percent, APGR as it is."""
    columns: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for name, value in asdict(run).items():
            if value is not None:
                columns[name].append(value if name == "apgr" else 100 * value)
    digits = {"apgr": 3}
    return [
        f"{mean(x):.{digits.get(n, 1)}f} ± {stdev(x) if len(x) > 1 else 0:.{digits.get(n, 1)}f}"
        for n, x in columns.items()
    ]


if __name__ == "__main__":
    main()
