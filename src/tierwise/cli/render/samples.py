"""Sampled answers that wait for a label, and the evidence that labels give, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tierwise.cli.render.lines import aligned, one_line

if TYPE_CHECKING:
    from tierwise.ledger import Ledger
    from tierwise.ledger.people.samples import Demoted, Item, Standing


def item_lines(ledger: Ledger, item: Item) -> Iterator[str]:
    """Yield a sampled answer, and the answer of the shadow model to the same document."""
    sample = item.accepted
    marks = []
    if item.disagrees:
        marks.append("disagree")
    if sample.counted:
        marks.append("counts")
    yield f"{item.id}  {sample.step} of {sample.document_id}  {' · '.join(marks)}".rstrip()
    run = ledger.runs.resolve(sample.run_id)
    rows = [("run", run.id)]
    source = run.parameters.get("source")
    if source:
        rows.append(("from", str(source)))
    answer = one_line(sample.accepted)
    rows.append(
        ("accepted", f"{sample.accepted_model}: {answer}{_label(sample.right)}")
    )
    if item.shadow:
        # There is nothing to label then.
        said = "no answer that passed the checks"
        if item.asks_both:
            said = one_line(item.shadow.value)
        rows.append(
            ("shadow", f"{item.shadow.model}: {said}{_label(item.shadow.right)}")
        )
    yield from aligned(rows, indent="  ")


def evidence_lines(standings: list[Standing], demotions: Demoted) -> Iterator[str]:
    """Yield what the labels show about each model, and what to do about it."""
    if standings:
        yield "\nWhat the labels show so far"
    # By step: the number of shadows among which one is chosen.
    shadows: dict[str, int] = {}
    for standing in standings:
        if standing.shadow:
            shadows[standing.step] = shadows.get(standing.step, 0) + 1
    rows = [
        (
            f"{standing.step}: {standing.model}",
            _standing_text(standing, demotions, shadows.get(standing.step, 0)),
        )
        for standing in standings
    ]
    yield from aligned(rows, indent="  ")


def _standing_text(
    standing: Standing,
    demotions: Mapping[tuple[str, tuple[str, ...]], str],
    shadows: int,
) -> str:
    """Return the evidence about one model; `shadows` is the number of them for its step."""
    from tierwise.policy.sequential_test import ALPHA

    parts = ["a shadow" if standing.shadow else "in use"]
    if standing.compared:
        parts.append(
            f"agrees with {standing.agreed} of {standing.compared} accepted answers, "
            "which proves nothing"
        )
    if standing.evidence is None:
        parts.append("no floor is set for this step, so labels decide nothing")
        return "; ".join(parts)
    parts.append(
        f"{standing.evidence.n} of {standing.counted} counted samples labelled in order, "
        f"{standing.evidence.failed} of them wrong"
    )
    # Demotions are kept by the chain of models, of which a sample has the text.
    chain = tuple(standing.model.split(" > "))
    reason = demotions.get((standing.step, chain))
    if reason and not standing.shadow:
        parts.append(f"DEMOTED: {reason}")
    # Shadows of one step are compared with each other, so they share the error rate.
    if standing.shadow and standing.evidence.certifies(ALPHA / shadows):
        parts.append(
            f"worth certifying: tierwise certify {standing.step} -m {standing.model}"
        )
    return "; ".join(parts)


def _label(right: bool | None) -> str:
    if right is None:
        return ""
    return " (right)" if right else " (wrong)"
