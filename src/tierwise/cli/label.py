"""`tierwise label`: a person's word on answers that chance picked, and what these words show."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.output import print_json
from tierwise.cli.render.lines import aligned
from tierwise.cli.render.lines import one_line as short
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from tierwise.ledger import Ledger
    from tierwise.ledger.people.samples import Demoted, Item, Standing
    from tierwise.project import Project

MOST = 20  # items in the list


def label(
    item: Annotated[
        str | None, typer.Argument(metavar="ID", help="An item of the list, or its beginning.")
    ] = None,
    right: Annotated[
        str | None, typer.Option(help="Which answer is right: shadow, accepted, both, neither.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who says so; default: the name that you are logged in with.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Only list, also on a terminal.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with everything that waits.")
    ] = False,
) -> None:
    """Label sampled answers as right or wrong.

    With `shadow: {share: 0.05}` in rules.yaml, chance picks 5 % of the accepted answers, and a cheaper model that is
    not certified answers the same documents. Disagreements come first. Of the rest those are listed that count.

    Your labels can demote a model in use, whose certificate then no longer counts, and they tell which shadow is
    worth certifying. Only items that chance marked as counted enter that evidence, in the order of recording, up to
    the first without a label: so a gap in the list holds up all that came after it.
    """
    from tierwise.ledger import Ledger
    from tierwise.project import Project

    project = Project.find()
    with (
        Ledger.open(project.ledger_url, root=project.root) as ledger,
        _news_of_demotion(project, ledger),
    ):
        if item is not None:
            _label_one(ledger, item, right, by, as_json=as_json)
        elif right is not None:
            raise Misuse("--right needs an ID; `tierwise label` lists them")
        elif as_json:
            print_json(_data(project, ledger))
        elif sys.stdin.isatty() and not listed:
            _ask(project, ledger, by or getpass.getuser())
        else:
            _list(project, ledger)


def _label_one(
    ledger: Ledger, item_id: str, right: str | None, by: str | None, *, as_json: bool
) -> None:
    found = ledger.audits.item(item_id)
    if right is not None:
        found = ledger.audits.label(found.id, right, by or getpass.getuser())  # type: ignore[arg-type] # checked there
    if as_json:
        print_json(_item_data(found))
        return
    for line in _item_lines(ledger, found):
        typer.echo(line)
    if right is None:
        typer.echo(
            f"say which is right: tierwise label {found.id} --right {'|'.join(found.words)}",
            err=True,
        )


def _ask(project: Project, ledger: Ledger, by: str) -> None:
    """One item after the other, until the list or the person is at an end."""
    queue = ledger.audits.queue()
    for number, item in enumerate(queue, 1):
        typer.echo(f"\n{number} of {len(queue)}")
        for line in _item_lines(ledger, item):
            typer.echo(line)
        letters = {word[0]: word for word in item.words} | {"q": "quit"}
        choices = ", ".join(f"[{word[0]}]{word[1:]}" for word in letters.values())
        word = ""
        while word not in letters:
            word = str(typer.prompt(f"right: {choices}", prompt_suffix="? ")).strip().lower()[:1]
        if word == "q":
            break
        ledger.audits.label(item.id, letters[word], by)  # type: ignore[arg-type] # one of its words
    else:
        typer.echo("Nothing waits for a label.")
    for line in _evidence(project, ledger):
        typer.echo(line)


def _list(project: Project, ledger: Ledger) -> None:
    queue = ledger.audits.queue()
    disagreements = sum(item.disagrees for item in queue)
    if not project.rules.shadow.share:
        typer.echo(
            "No answers are picked for labels: write `shadow: {share: 0.05}` into rules.yaml for 1 in 20."
        )
    typer.echo(
        f"{len(queue)} wait for a label: {disagreements} disagreements, {len(queue) - disagreements} others"
    )
    for item in queue[:MOST]:
        typer.echo("")
        for line in _item_lines(ledger, item):
            typer.echo(line)
    if len(queue) > MOST:
        typer.echo(f"\n… and {len(queue) - MOST} more; --json shows all")
    for line in _evidence(project, ledger):
        typer.echo(line)


def _item_lines(ledger: Ledger, item: Item) -> Iterator[str]:
    audit = item.accepted
    shadow = item.shadow
    marks = [
        mark for mark, holds in (("disagree", item.disagrees), ("counts", audit.counted)) if holds
    ]
    yield f"{item.id}  {audit.step} of {audit.document_id}  {' · '.join(marks)}".rstrip()
    run = ledger.resolve_run(audit.run_id)
    rows = [("run", run.id)]
    if source := run.parameters.get("source"):
        rows.append(("from", str(source)))
    rows.append(
        ("accepted", f"{audit.accepted_model}: {short(audit.accepted)}{_label_of(audit.right)}")
    )
    if shadow:
        said = short(shadow.value) if item.asks_both else "no answer that the checks let pass"
        rows.append(("shadow", f"{shadow.model}: {said}{_label_of(shadow.right)}"))
    yield from aligned(rows, indent="  ")


def _label_of(right: bool | None) -> str:
    return "" if right is None else " (right)" if right else " (wrong)"


def _evidence(project: Project, ledger: Ledger) -> Iterator[str]:
    """What the labels show of each model, and what to do about it."""
    standings = ledger.audits.standings(project.rules.floors)
    demoted = _demoted(project, ledger)
    if standings:
        yield "\nWhat the labels show so far"
    shadows = {
        s.step: sum(other.shadow and other.step == s.step for other in standings) for s in standings
    }
    rows = [(f"{s.step}: {s.model}", _standing(s, demoted, shadows[s.step])) for s in standings]
    yield from aligned(rows, indent="  ")


def _standing(s: Standing, demoted: Demoted, shadows: int) -> str:
    from tierwise.policy.sequential_test import ALPHA

    parts = ["a shadow" if s.shadow else "in use"]
    if s.compared:
        parts.append(
            f"agrees with {s.agreed} of {s.compared} accepted answers, which proves nothing"
        )
    if s.evidence is None:
        return "; ".join([*parts, "no floor is set for this step, so labels decide nothing"])
    parts.append(
        f"{s.evidence.n} of {s.counted} counted audits labelled in order, {s.evidence.failed} of them wrong"
    )
    if not s.shadow and (why := demoted.get((s.step, tuple(s.model.split(" > "))))):
        parts.append(f"DEMOTED: {why}")
    if s.shadow and s.evidence.certifies(ALPHA / shadows):
        parts.append(f"worth certifying: tierwise certify {s.step} -m {s.model}")
    return "; ".join(parts)


@contextmanager
def _news_of_demotion(project: Project, ledger: Ledger) -> Iterator[None]:
    """Tell, at the end, which certificates stopped to count meanwhile."""
    before = _demoted(project, ledger)
    yield
    for (step, models), why in _demoted(project, ledger).items():
        if (step, models) not in before:
            typer.echo(
                f"The certificate of {' > '.join(models)} for {step} no longer counts: {why}",
                err=True,
            )


def _demoted(project: Project, ledger: Ledger) -> Demoted:
    from tierwise.ledger.people.samples import demoted

    return demoted(ledger.audits, project.certificates, project.rules.floors)


def _data(project: Project, ledger: Ledger) -> dict[str, Any]:
    demoted = _demoted(project, ledger)
    return {
        "queue": [_item_data(item) for item in ledger.audits.queue()],
        "evidence": [
            asdict(standing) for standing in ledger.audits.standings(project.rules.floors)
        ],
        "demoted": [
            {"step": step, "models": models, "reason": why}
            for (step, models), why in demoted.items()
        ],
    }


def _item_data(item: Item) -> dict[str, Any]:
    audits = {"accepted": asdict(item.accepted), "shadow": item.shadow and asdict(item.shadow)}
    return {
        "id": item.id,
        "disagree": item.disagrees,
        "counted": item.accepted.counted,
        "words": item.words,
        **audits,
    }
