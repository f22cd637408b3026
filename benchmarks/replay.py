"""What the replayed router recovers of the quality gap, beside chance, simpler estimates and the oracle.

    python -m benchmarks.replay --data ../shared/data/outcomes/routellm_mmlu_train.csv.gz --labels 1500 --seeds 10

For each seed the items are halved by chance; labels are drawn from one half, everything is measured on the
other. All estimates learn from the same labels. The last row but one learns from every item of the first half:
what more labels would still bring. CPT50, CPT80 and USD50 are better when lower, APGR when higher.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import asdict
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
    sweep,
    true_quality,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    if not options.data.exists():
        raise SystemExit(
            f"skipped: {options.data} is not there; --data names a file of recorded outcomes"
        )
    outcomes = read_outcomes(options.data)
    found: dict[str, list[CurveMeasures]] = defaultdict(list)
    for seed in range(options.seeds):
        for policy, measures in compare(outcomes, options.labels, seed).items():
            found[policy].append(measures)
    print(
        f"| policy, {options.labels} labels | CPT50 | CPT80 | APGR | USD50 |\n|---|---|---|---|---|"
    )
    for policy, runs in found.items():
        print(f"| {policy} | {' | '.join(cells(runs))} |")


def compare(outcomes: OutcomeTable, labels: int, seed: int) -> dict[str, CurveMeasures]:
    """Every policy on one half of the items, learned from labels in the other."""
    random = numpy.random.default_rng(seed)
    order = random.permutation(len(outcomes)).tolist()
    first = outcomes.part(order[: len(order) // 2])
    on = outcomes.part(order[len(order) // 2 :])
    labelled = first.draw(labels, seed)
    estimate = fit(labelled)
    whole = fit(first)
    beliefs = {
        "random": of_two(on, random.random(len(on))),
        "prompt length alone, the longest go up": of_two(on, -on.prompt_tokens),
        "table by step": of_two(on, table(labelled, on)),
        "**tierwise**": estimate.quality(on),
        "**tierwise, --per-usd**": estimate.worth(on),
        f"tierwise, all {len(first)} items as labels": whole.quality(on),
        "oracle": true_quality(on, len(estimate.candidates)),
    }
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
