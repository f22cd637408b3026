"""Sampled answers that wait for a label, and the evidence that labels give, as lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from tierwise.cli.render.lines import aligned, one_line
from tierwise.policy.certificates import FLOORS
from tierwise.policy.label_value import fall_to_notice, labels_until, outlook
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.ledger import Ledger
    from tierwise.ledger.people.label_order import OpenDecision
    from tierwise.ledger.people.samples import Demoted, Item, Standing
    from tierwise.policy.sequential_test import Evidence


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


def decision_lines(decisions: Iterable[OpenDecision]) -> Iterator[str]:
    """Yield what further labels would settle, a line for each decision."""
    rows = [(_decision_name(each), decision_text(each)) for each in decisions]
    if rows:
        yield "What further labels would show, the most likely to change something first"
    yield from aligned(rows, indent="  ")


def decision_line(decision: OpenDecision) -> str:
    """Return what further labels would settle, in one line."""
    return f"{_decision_name(decision)}: {decision_text(decision)}"


def decision_text(each: OpenDecision) -> str:
    """Return the labels so far, what they show, and how many are left until something changes."""
    evidence = each.decision.evidence
    counted = plural(evidence.n, "counted label")
    parts = [
        f"{counted}, {evidence.failed} wrong" if evidence.n else "no counted label"
    ]
    if each.unread:
        parts[0] += f" ({each.unread} more behind a gap)"
    if each.certificate is None:
        parts.append(_promotion_text(each))
    else:
        parts += _demotion_texts(each)
    if not each.is_settled:
        parts.append(f"{len(each.waiting)} wait")
    return "; ".join(parts)


def _decision_name(each: OpenDecision) -> str:
    shadow = " (shadow)" if each.certificate is None else ""
    return f"{each.step}: {' > '.join(each.models)}{shadow}"


def _promotion_text(each: OpenDecision) -> str:
    evidence = each.decision.evidence
    floor = f"{evidence.floor:g}"
    if each.is_settled:
        return f"worth certifying for {floor}"
    rate = evidence.passed / evidence.n if evidence.n else 1.0
    more = labels_until(each.decision, rate)
    if more is None:
        return f"not better than the floor of {floor} so far"
    return f"{_about(more, evidence)} make it worth certifying for {floor}"


def _demotion_texts(each: OpenDecision) -> Iterator[str]:
    evidence = each.decision.evidence
    if each.is_settled:
        yield f"DEMOTED: below the floor of {evidence.floor:g}"
        return
    seen = outlook(evidence, FLOORS)
    shown = "" if seen.shown is None else f"{seen.shown:g} is shown in use, "
    if seen.next_floor is not None and seen.more is not None:
        yield f"{shown}{_about(seen.more, evidence)} show {seen.next_floor:g}"
    elif seen.next_floor is not None:
        yield f"{shown}not {seen.next_floor:g}, with labels like these"
    elif shown:
        yield shown.removesuffix(", ")
    fallen = fall_to_notice(evidence.floor)
    until = labels_until(each.decision, fallen)
    if until is not None:
        yield f"a fall to {fallen:g} would be noticed after about {until}"


def _about(more: int, evidence: Evidence) -> str:
    """Return a number of labels like those so far."""
    if not evidence.n:
        return f"{more} without an error would"
    if more == 1:
        return "1 more like these would"
    return f"about {more} more like these would"


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
