"""How many labels it takes to find the model that fell, asked by value, and asked of all steps alike.

    python -m benchmarks.label_value --draws 200

Some steps, each with a certified model and samples that wait for a label. One model is below its floor; the
others are well above it. A person labels one counted sample after the other until a certificate no longer
counts. *By value* is the order of `tierwise label`; *alike* takes the steps in turn, as labels in the order of
recording do. "Labels before" are there already in each step, from before the fall.

Whatever the order, samples of a step are labelled in the order of recording and drawn by chance, so the tests
stay valid. The last lines let every model stand exactly at its floor and label by value. At most 5 % of the
models should be demoted, and among all labels together the share of right answers should be the floor: which
step comes next was chosen before its label was seen. The mean of the steps' own shares is there too: it is too
high, as a step that looks good early gets few labels, so such a share is no estimate. No test uses it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median

import numpy

from tierwise.policy.label_value import Decision, believe, value
from tierwise.policy.sequential_test import Evidence, demotion, update

GOLDEN = (57, 3)  # right and wrong answers in each golden set


@dataclass
class Step:
    """One step's counted samples, in the order of recording; `truth` says which answers are right."""

    floor: float
    truth: list[bool]
    evidence: Evidence
    labels: list[bool] = field(default_factory=list)
    worth: float | None = None  # as the labels are now

    @property
    def waiting(self) -> int:
        return len(self.truth) - len(self.labels)

    def label(self) -> bool:
        """Label the next sample, and say whether the model is demoted."""
        is_right = self.truth[len(self.labels)]
        self.labels.append(is_right)
        self.evidence = update(self.evidence, is_right)
        self.worth = None
        return demotion(self.evidence) is not None

    def value(self) -> float:
        if self.worth is None:
            belief = believe(self.labels, waiting=self.waiting, golden=GOLDEN)
            self.worth = value(Decision("demotion", self.evidence), belief)
        return self.worth


Order = Callable[[Sequence[Step], int], Step]


def by_value(steps: Sequence[Step], _asked: int) -> Step:
    return max(steps, key=lambda step: (step.value(), step.waiting))


def alike(steps: Sequence[Step], asked: int) -> Step:
    return steps[asked % len(steps)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = numpy.random.default_rng(options.seed)
    print(
        "| steps | floor | others, fallen | labels before | alike | by value | ratio |\n"
        "|---|---|---|---|---|---|---|"
    )
    for steps, floor, good, bad, before in (
        (4, 0.9, 0.96, 0.75, 0),
        (8, 0.9, 0.96, 0.75, 0),
        (8, 0.9, 0.96, 0.75, 40),
        (8, 0.8, 0.9, 0.6, 0),
        (8, 0.8, 0.9, 0.6, 40),
        (8, 0.95, 0.98, 0.85, 0),
    ):
        in_turn = []
        chosen = []
        for _ in range(options.draws):
            made = population(random, steps, good, bad, before)
            in_turn.append(labels_until_demoted(made, before, floor, alike))
            chosen.append(labels_until_demoted(made, before, floor, by_value))
        print(
            f"| {steps} | {floor:g} | {good:g}, {bad:g} | {before} | {mean(in_turn):.0f} "
            f"| {mean(chosen):.0f} (median {median(chosen):.0f}) "
            f"| {mean(chosen) / mean(in_turn):.2f} |",
            flush=True,
        )
    at_the_floor(random, options.draws)


def population(
    random: numpy.random.Generator,
    steps: int,
    good: float,
    bad: float,
    before: int,
) -> list[list[bool]]:
    """The truth of each step's samples; the first `before` are from before the fall of one model."""
    fallen = int(random.integers(steps))
    made = []
    for number in range(steps):
        later = bad if number == fallen else good
        accuracies = [good] * before + [later] * 400
        made.append((random.random(before + 400) < accuracies).tolist())
    return made


def labels_until_demoted(
    made: Sequence[list[bool]], before: int, floor: float, order: Order
) -> int:
    """How many labels are given until any model is demoted."""
    steps = []
    for truth in made:
        step = Step(floor, truth[:before], Evidence(floor=floor))
        for _ in range(before):
            step.label()
        step.truth = truth
        steps.append(step)
    most = sum(step.waiting for step in steps)
    for asked in range(most):
        waiting = [step for step in steps if step.waiting]
        if order(waiting, asked).label():
            return asked + 1
    return most


def at_the_floor(random: numpy.random.Generator, draws: int) -> None:
    """All models stand exactly at their floor: what is demoted is demoted wrongly."""
    demoted = 0
    labels: list[bool] = []
    shares = []
    for _ in range(draws):
        steps = [
            Step(0.9, (random.random(40) < 0.9).tolist(), Evidence(floor=0.9))
            for _ in range(4)
        ]
        for _ in range(60):
            waiting = [
                step
                for step in steps
                if step.waiting and demotion(step.evidence) is None
            ]
            if waiting:
                demoted += by_value(waiting, 0).label()
        for step in steps:
            labels += step.labels
            if step.labels:
                shares.append(mean(step.labels))
    models = 4 * draws
    print(
        f"\nat the floor of 0.9, by value, 60 labels for 4 steps: {demoted} of {models} models demoted wrongly "
        f"({demoted / models:.1%}); right among all labels: {mean(labels):.4f}; mean of the steps' shares: "
        f"{mean(shares):.3f}"
    )


if __name__ == "__main__":
    main()
