"""Certified candidates as data, a table, and a sentence for each."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import typer

from tierwise.cli.output import print_table
from tierwise.policy.certificates import shortened
from tierwise.text.amounts import usd

if TYPE_CHECKING:
    from tierwise.evidence.certify import CandidateResult, Evaluation, WrongAnswer
    from tierwise.policy.floors import PairedFloor

_MOST_WRONG = 10  # of each candidate
_WIDTH = 60  # characters of a value


def candidate_data(evaluation: Evaluation, result: CandidateResult) -> dict[str, Any]:
    """Return everything that was measured of one candidate, as plain data."""
    measured = result.measurement
    judged = measured.judged
    floor = evaluation.floor
    paired = evaluation.paired_floor
    # None: no call reported its tokens.
    usage = measured.mean_usage or {}
    return {
        "candidate": measured.name,
        "models": list(measured.models),
        "threshold": measured.threshold,
        "coverage": measured.coverage,
        "n": measured.n,
        "right": measured.n - measured.errors,
        "no_answer": measured.deferred,
        "accuracy": 1 - measured.errors / measured.n if measured.n else None,
        "bound": result.bound,
        "compared": result.level.compared,
        "alpha": result.level.alpha,
        "floor": floor,
        "capable": result.is_shown or (floor is not None and result.bound >= floor),
        "certified": result.certificate is not None,
        "next_floor": result.next_floor and asdict(result.next_floor),
        "reference": result.reference,
        "at_most_worse": paired.worse if paired else None,
        "lost": result.pairs and result.pairs.lost,
        "gained": result.pairs and result.pairs.gained,
        "cost_a_document_usd": measured.mean_cost,
        "mean_usage": {name: tokens.model_dump() for name, tokens in usage.items()},
        "latency_p50_s": measured.latency_p50_s,
        # `and`: None without a judge, else the judge's figure.
        "judged_by": judged and judged.by,
        "unscored": judged and judged.unscored,
        "human_labels": judged and judged.human_labels,
        "false_passes": judged and judged.false_passes,
        "wrong": [answer.id for answer in measured.wrong],
        "wrong_answers": [_wrong_data(answer) for answer in measured.wrong],
        "no_answer_because": measured.no_answer,
        "says": _conclusion(evaluation, result),
    }


def print_candidates(
    evaluation: Evaluation,
    results: Sequence[CandidateResult],
    data: Sequence[dict[str, Any]],
) -> None:
    """Print a table, and a sentence for each candidate that missed the floor or needs a note."""
    golden = evaluation.golden
    size = len(golden.examples)
    floor = "no floor"
    if evaluation.floor is not None:
        floor = f"floor {evaluation.floor:g}"
    if evaluation.paired_floor is not None:
        floor = f"floor: {evaluation.paired_floor.words}"
    title = f"{evaluation.step.name} on {golden.path.name}: {size} examples, {floor}"
    # Each of several candidates has to prove more than one alone.
    candidates = max(result.level.compared for result in results)
    if candidates > 1:
        title += f", {candidates} compared"
    print_table([_cells(row) for row in data], title=title)
    for row, result in zip(data, results, strict=True):
        is_reference = result.reference is not None and result.pairs is None
        if not row["capable"] or result.note or is_reference:
            typer.echo(f"{row['candidate']}: {row['says']}")
        if result.next_floor:
            typer.echo(f"{row['candidate']}: {result.next_floor.sentence}")
    # A candidate with a threshold stands for its chain: its wrong answers are among the others.
    last_of_chain = {result.measurement.models: result for result in results}
    for result in last_of_chain.values():
        _print_wrong(result)


def _print_wrong(result: CandidateResult) -> None:
    """Print the first wrong answers of a candidate, a line for each field."""
    wrong = result.measurement.wrong
    if not wrong:
        return
    rows = []
    for answer in wrong[:_MOST_WRONG]:
        if answer.reason:
            rows.append(_wrong_cells(answer.id, "", "", answer.reason))
        for difference in answer.differences:
            cells = _wrong_cells(
                answer.id, difference.field, difference.expected, difference.given
            )
            rows.append(cells)
    print_table(rows, title=f"Wrong answers of {result.measurement.name}")
    # Counted in answers, though each may take several lines above.
    more = len(wrong) - _MOST_WRONG
    if more > 0:
        typer.echo(f"… and {more} more; --json shows all")


def _wrong_cells(
    document: str, field: str, expected: object, given: object
) -> dict[str, str]:
    return {
        "document": document,
        "field": field,
        "expected": _in_short(expected),
        "given": _in_short(given),
    }


def _in_short(value: object) -> str:
    text = value
    if not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False, default=str)
    return textwrap.shorten(str(text), _WIDTH, placeholder=" …")


def _wrong_data(answer: WrongAnswer) -> dict[str, Any]:
    return {
        "id": answer.id,
        "reason": answer.reason,
        "fields": [asdict(difference) for difference in answer.differences],
    }


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    # Only a candidate with a confidence threshold hands on some of its answers.
    keeps = ""
    if row["coverage"] is not None:
        keeps = f"{row['coverage']:.0%}"
    proves = {"proves": shortened(row["bound"])}
    capable = "yes" if row["capable"] else "no"
    if row["reference"] is not None:
        proves = {"lost": row["lost"], "gained": row["gained"]}
        if row["lost"] is None:
            proves = {"lost": "", "gained": ""}
            capable = "reference"
    return {
        "candidate": row["candidate"],
        "keeps": keeps,
        "right": f"{row['right']} of {row['n']}",
        **proves,
        "capable": capable,
        "cost a document": _amount(row["cost_a_document_usd"]),
        "p50": f"{row['latency_p50_s']:.2f} s",
    }


def _amount(cost: Decimal | None) -> str:
    return "unknown" if cost is None else usd(cost)


def _conclusion(evaluation: Evaluation, result: CandidateResult) -> str:
    """Return what the result means, and what to do next."""
    measured = result.measurement
    parts = [_evidence(evaluation, result)]
    if result.note:
        parts.append(result.note)
    if measured.no_answer:
        reason = textwrap.shorten(measured.no_answer, 120)
        parts.append(f"{measured.deferred} without an answer, most often: {reason}")
    if evaluation.floor is None and evaluation.paired_floor is None:
        parts.append(f"no floor is set for {evaluation.step.name} in rules.yaml")
    return ". ".join(parts)


def _comparison(floor: PairedFloor, result: CandidateResult) -> str:
    """Return what the items show of a candidate beside the reference."""
    pairs = result.pairs
    if pairs is None:
        measured = result.measurement
        right = f"{measured.n - measured.errors} of {measured.n} right"
        return f"{right}, the reference that the others are compared with"
    if result.is_shown:
        return f"{pairs.words} beside {floor.reference}: shown to be {floor.words}"
    text = f"{pairs.words} beside {floor.reference}: not shown to be {floor.words}"
    worse = (pairs.lost - pairs.gained) / pairs.n
    if worse >= floor.worse:
        return (
            f"{text}, and more labels like these never will, as it is {worse:.1%} worse"
        )
    return text


def _evidence(evaluation: Evaluation, result: CandidateResult) -> str:
    """Return what the examples show about a candidate, and how many labels are missing."""
    measured = result.measurement
    judged = measured.judged
    if evaluation.paired_floor is not None:
        return _comparison(evaluation.paired_floor, result)
    # Without a floor nothing is certified, but the sentence needs a number.
    floor = evaluation.floor or 0.0
    if evaluation.rubric and judged is None:
        return "not certified: its rubric needs a judge, see --judge"
    if judged is None:
        if not measured.n:
            return "kept nothing"
        shortfall = measured.shortfall(floor, result.level)
        if shortfall.if_all_right != 0 and result.next_level is not None:
            # More labels are another look, which has less of alpha to spend.
            later = measured.shortfall(floor, result.next_level)
            shortfall = replace(
                shortfall,
                at_this_rate=later.at_this_rate,
                if_all_right=later.if_all_right,
            )
        return shortfall.sentence
    # Before any figure of the judge: without these labels it has none that counts.
    if judged.open_labels:
        labels = f"{evaluation.golden.path.stem}-labels.jsonl"
        return (
            f"not certified: {judged.open_labels} answers in {labels} wait for a person"
        )
    text = f"{judged.by} passed {measured.n - measured.errors} of {measured.n}"
    if judged.unscored:
        text += f", and {judged.unscored} of its verdicts could not be read"
    if judged.human_labels:
        text += (
            f"; of {judged.human_labels} answers that people labelled, "
            f"it passed {judged.false_passes} that are wrong"
        )
    else:
        text += "; a judge never certifies alone"
    # None: no number of labels would be enough; 0: there are enough.
    missing = measured.labels_for_the_judge(floor, result.level)
    if missing is None:
        return f"{text}; too few passed for {floor:g}, however many labels people give"
    if missing:
        return (
            f"{text}; {floor:g} needs {missing} more labels by people, see --to-label"
        )
    return text
