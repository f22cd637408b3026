"""`tierwise label`: labels of a random sample of answers, and the evidence they give."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json
from tierwise.cli.person import user_name
from tierwise.cli.render.samples import (
    decision_line,
    decision_lines,
    decision_text,
    evidence_lines,
    item_lines,
)
from tierwise.errors import Misuse, UnknownName

if TYPE_CHECKING:
    from tierwise.ledger import Ledger
    from tierwise.ledger.people.label_order import LabelOrder, OpenDecision
    from tierwise.ledger.people.samples import Demoted, Item
    from tierwise.project import Project

_MOST_ITEMS = 20  # in the list
_MOST_DECISIONS = 10


def label(
    item: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="A sample of the list, or the beginning of its id."
        ),
    ] = None,
    right: Annotated[
        str | None,
        typer.Option(
            metavar="ANSWER",
            help="The right answer: shadow, accepted, both or neither.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who labels; default: your user name."),
    ] = None,
    step: Annotated[
        str | None,
        typer.Option("--step", metavar="STEP", help="Samples of this step only."),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List only, even on a terminal.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Label sampled answers as right or wrong.

    On a terminal it asks about one sample after the other. In a script, type
    `tierwise label 3fa9 --right accepted`. With `shadow: {share: 0.05}` in rules.yaml, a random 5 %
    of the accepted answers are sampled, and a cheaper, uncertified model answers the same
    documents.

    The next sample is the one that most likely settles something: the demotion of a model in use,
    or that a shadow is worth certifying. One line says how many labels are left until the next
    floor is shown, and until a fall would be noticed; it comes again after each answer. The order
    chooses among models alone. Which documents count was drawn by chance, and they are asked in
    the order of recording. Disagreements that do not count come last.

    Labels are evidence in a sequential test. They can demote a model in use, whose certificate then
    no longer counts, and they show which shadow model is worth certifying. Only samples marked
    `counts` are evidence, in the order of recording, up to the first one without a label.
    """
    project = find_project()
    # Demotions are reported whichever way the label is given.
    with open_ledger(project) as ledger, _report_demotions(project, ledger):
        if item is not None:
            if step is not None:
                raise Misuse("--step is for the list; an ID names one sample")
            _label_one(project, ledger, item, right, by, as_json=as_json)
        elif right is not None:
            raise Misuse("--right needs an ID; `tierwise label` lists them")
        elif as_json:
            print_json(_data(project, ledger, step))
        elif sys.stdin.isatty() and not listed:
            _ask_in_turn(project, ledger, step, by or user_name())
        else:
            _list(project, ledger, step)


def _refuse_vacuous_rows(project: Project, steps: Iterable[str]) -> None:
    """Raise ConfigError for a golden row that every answer passes.

    Labels test certificates, and one that rests on such rows is no evidence to test. Called only
    where a label is given: it imports the project's steps, which a list can do without.
    """
    from tierwise.evidence.certify import golden_faults

    for step in dict.fromkeys(steps):
        try:
            faults = golden_faults(project, step, outcomes_needed=False)
        except UnknownName:
            continue  # a step of an earlier time
        for fault in faults:
            raise fault


def _label_one(
    project: Project,
    ledger: Ledger,
    item_id: str,
    right: str | None,
    by: str | None,
    *,
    as_json: bool,
) -> None:
    """Record a label, if there is one, and print the sample."""
    # Before a label: the id may be the beginning of one, and only the item knows it whole.
    item = ledger.samples.item(item_id)
    if right is not None:
        _refuse_vacuous_rows(project, [item.accepted.step])
        item = ledger.samples.label(item.id, right, by or user_name())  # type: ignore[arg-type] # checked there
    if as_json:
        print_json(_item_data(item))
        return
    _print_lines(item_lines(ledger, item))
    _print_decisions_of(item, _order(project, ledger, item.accepted.step))
    if right is None:
        words = "|".join(item.words)
        typer.echo(
            f"say which is right: tierwise label {item.id} --right {words}", err=True
        )


def _order(project: Project, ledger: Ledger, step: str | None) -> LabelOrder:
    """Return what to label next. Raises UnknownName for a step without samples."""
    from tierwise.ledger.people.label_order import label_order

    audits = ledger.samples.recorded()
    if step is not None:
        known = {audit.step for audit in audits}
        if step not in known | set(project.rules.floors):
            raise UnknownName("step with samples", step, sorted(known))
    return label_order(
        audits, project.certificates, project.rules.share_floors, step=step
    )


def _print_decisions_of(item: Item, order: LabelOrder) -> None:
    """Print what the labels so far leave open about the models that answered an item."""
    for decision in order.decisions_of(item):
        typer.echo(decision_line(decision))


def _ask_in_turn(project: Project, ledger: Ledger, step: str | None, by: str) -> None:
    """Ask about one sample after the other, until none is left or the person quits.

    Each answer may change which sample is the most valuable.
    """
    order = _order(project, ledger, step)
    _refuse_vacuous_rows(project, [item.accepted.step for item in order.items])
    _print_lines(decision_lines(order.decisions[:_MOST_DECISIONS]))
    asked = 0
    while order.items:
        item = order.items[0]
        asked += 1
        typer.echo(f"\n{asked} of {asked + len(order.items) - 1}")
        _print_lines(item_lines(ledger, item))
        # By first letter: accepted, shadow, both, neither and quit all begin differently.
        words = {word[0]: word for word in item.words}
        letter = _ask_for_letter(words | {"q": "quit"})
        if letter == "q":
            break
        ledger.samples.label(item.id, words[letter], by)
        order = _order(project, ledger, step)
        _print_decisions_of(item, order)
    else:
        # The loop came to its end without `break`: all are labelled.
        typer.echo("Nothing waits for a label.")
    _print_evidence(project, ledger, step)


def _ask_for_letter(words: dict[str, str]) -> str:
    """Ask for one of these words, and return its first letter."""
    choices = ", ".join(f"[{letter}]{word[1:]}" for letter, word in words.items())
    letter = ""
    while letter not in words:
        answer = typer.prompt(f"right: {choices}", prompt_suffix="? ")
        # The first letter is enough, and so is the whole word.
        letter = str(answer).strip().lower()[:1]
    return letter


def _list(project: Project, ledger: Ledger, step: str | None) -> None:
    """Print the samples that wait for a label, the next one first, and the evidence so far."""
    order = _order(project, ledger, step)
    queue = order.items
    disagreements = sum(item.disagrees for item in queue)
    if not project.rules.shadow.share:
        typer.echo(
            "No answers are sampled for labels: "
            "write `shadow: {share: 0.05}` into rules.yaml for 1 in 20."
        )
    typer.echo(
        f"{len(queue)} wait for a label: "
        f"{disagreements} disagreements, {len(queue) - disagreements} others"
    )
    _print_lines(decision_lines(order.decisions[:_MOST_DECISIONS]))
    for item in queue[:_MOST_ITEMS]:
        typer.echo("")
        _print_lines(item_lines(ledger, item))
    more = len(queue) - _MOST_ITEMS
    if more > 0:
        typer.echo(f"\n… and {more} more; --json shows all")
    _print_evidence(project, ledger, step)


def _print_evidence(project: Project, ledger: Ledger, step: str | None) -> None:
    standings = [
        standing
        for standing in ledger.samples.standings(project.rules.share_floors)
        if step in (None, standing.step)
    ]
    _print_lines(evidence_lines(standings, _demotions(project, ledger)))


def _print_lines(lines: Iterator[str]) -> None:
    for line in lines:
        typer.echo(line)


@contextmanager
def _report_demotions(project: Project, ledger: Ledger) -> Iterator[None]:
    """Report, at the end, the certificates that labels have demoted meanwhile."""
    # What was demoted earlier is no news.
    before = _demotions(project, ledger)
    yield
    for (step, models), reason in _demotions(project, ledger).items():
        if (step, models) not in before:
            chain = " > ".join(models)
            typer.echo(
                f"The certificate of {chain} for {step} no longer counts: {reason}",
                err=True,
            )


def _demotions(project: Project, ledger: Ledger) -> Demoted:
    from tierwise.ledger.people.samples import demoted

    return demoted(ledger.samples, project.certificates, project.rules.share_floors)


def _data(project: Project, ledger: Ledger, only: str | None) -> dict[str, Any]:
    order = _order(project, ledger, only)
    queue = [
        item for item in ledger.samples.queue() if only in (None, item.accepted.step)
    ]
    standings = [
        standing
        for standing in ledger.samples.standings(project.rules.share_floors)
        if only in (None, standing.step)
    ]
    demotions = [
        {"step": step, "models": models, "reason": reason}
        for (step, models), reason in _demotions(project, ledger).items()
        if only in (None, step)
    ]
    return {
        "queue": [_item_data(item) for item in queue],
        "ask_next": [item.id for item in order.items],
        "decisions": [_decision_data(decision) for decision in order.decisions],
        "evidence": [asdict(standing) for standing in standings],
        "demoted": demotions,
    }


def _decision_data(decision: OpenDecision) -> dict[str, Any]:
    return {
        "step": decision.step,
        "models": list(decision.models),
        "wanted": decision.decision.wanted,
        "settled": decision.is_settled,
        "labels": decision.decision.evidence.n,
        "wrong": decision.decision.evidence.failed,
        "waiting": list(decision.waiting),
        "value": decision.value,
        "text": decision_text(decision),
    }


def _item_data(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "disagree": item.disagrees,
        "counted": item.accepted.counted,
        "words": item.words,
        "accepted": asdict(item.accepted),
        "shadow": item.shadow and asdict(item.shadow),
    }
