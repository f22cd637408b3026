"""`tierwise review`: what waits for a person, and a person's decisions about it."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.output import console, print_json, print_table
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from tierwise.ledger import Decision, Ledger, RunRow
    from tierwise.project import Project
    from tierwise.records import Attempt
    from tierwise.review.queue import ReviewItem


def review(
    run: Annotated[
        str, typer.Argument(help="A run's id, the beginning of one, or `latest`.")
    ] = "latest",
    document: Annotated[
        str | None, typer.Argument(help="A document's id: shows it in full, or decides.")
    ] = None,
    step: Annotated[str | None, typer.Option("--step", help="Only this step.")] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="Take the answer that waits, or the last one given.")
    ] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", help="With --approve: the answer of this attempt.")
    ] = None,
    edit: Annotated[
        str | None,
        typer.Option(
            "--edit", help="Take this answer: JSON, or a file that holds it, or - for the input."
        ),
    ] = None,
    editor: Annotated[
        bool, typer.Option("--editor", help="Write the answer in your editor ($EDITOR).")
    ] = False,
    reject: Annotated[
        bool, typer.Option("--reject", help="Take no answer; later steps skip the document.")
    ] = False,
    reopen: Annotated[bool, typer.Option("--reopen", help="Take the last decision back.")] = False,
    note: Annotated[str, typer.Option("--note", help="Why, for those who read it later.")] = "",
    by: Annotated[
        str | None, typer.Option("--by", help="Who decides; default: your user name.")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="One after the other, a key for each.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Approve, edit or reject the deferred answers.

    `tierwise review` lists the newest run's; `tierwise review RUN DOCUMENT` shows the text, every answer and why it
    failed; `--approve`, `--edit`, `--reject` decide. A decision counts at once, and in all later runs that ask the
    same of the same text: `tierwise retry RUN` goes on from there.
    """
    from tierwise.review.queue import find_item, waiting

    chosen = [approve, edit is not None, editor, reject, reopen]
    if sum(chosen) > 1:
        raise Misuse("decide once: only one of --approve, --edit, --editor, --reject and --reopen")
    if any(chosen) and document is None:
        raise Misuse("name the document that you decide about: tierwise review RUN DOCUMENT")
    if attempt is not None and not approve:
        raise Misuse("--attempt goes with --approve: it names the attempt whose answer is taken")
    project, ledger = _opened()
    with ledger:
        row = ledger.resolve_run(run)
        if document is None and interactive:
            _one_by_one(project, ledger, row, step, by or user_name())
        elif document is None:
            _list(list(waiting(ledger, row.id, step)), row, as_json=as_json)
        elif any(chosen):
            item = find_item(ledger, row.id, document, step)
            text = _edited(item) if editor else _given(edit) if edit is not None else None
            decision = _decide(
                ledger, item, text, approve, attempt, reject, by=by or user_name(), note=note
            )
            _tell(decision, as_json=as_json)
        else:
            _show(project, ledger, row, find_item(ledger, row.id, document, step), as_json=as_json)


def _opened() -> tuple[Project, Ledger]:
    from tierwise.ledger import Ledger
    from tierwise.project import Project

    project = Project.find()
    return project, Ledger.open(project.ledger_url, root=project.root)


def _decide(
    ledger: Ledger,
    item: ReviewItem,
    text: str | None,
    approve: bool,
    attempt: int | None,
    reject: bool,
    *,
    by: str,
    note: str,
) -> Decision:
    from tierwise.review import queue

    if approve:
        return queue.approve(ledger, item, attempt, by=by, note=note)
    if text is not None:
        return queue.edit(ledger, item, text, by=by, note=note)
    return (queue.reject if reject else queue.reopen)(ledger, item, by=by, note=note)


def _tell(decision: Decision, *, as_json: bool = False) -> None:
    if as_json:
        print_json(
            {"document": decision.document_id, "step": decision.step, **_decision_data(decision)}
        )
        return
    typer.echo(f"{decision.document_id}, {decision.step}: {decision.says}")
    if decision.decision in ("approved", "edited"):
        typer.echo(f"Later steps go on with: tierwise retry {decision.run_id}", err=True)


def _list(items: list[ReviewItem], run: RunRow, *, as_json: bool) -> None:
    if as_json:
        print_json([_data(item) for item in items])
        return
    rows = [_cells(item) for item in items]
    print_table(
        rows,
        title=f"{run.flow} · run {run.id}: {len(rows)} wait",
        empty=f"nothing waits in run {run.id}",
    )
    if rows:
        typer.echo(
            f"One in full: tierwise review {run.id} '{items[0].document_id}'   All in turn: tierwise review {run.id} -i"
        )


def _cells(item: ReviewItem) -> dict[str, Any]:
    from tierwise.text.amounts import usd

    costs = [attempt.cost for attempt in item.outcome.attempts]
    return {
        "document": item.document_id,
        "step": item.step,
        "sensitivity": item.outcome.sensitivity,
        "attempts": len(costs),
        "failed": item.faults,
        "cost": usd(sum((c for c in costs if c is not None), Decimal(0)), costs.count(None)),
        "answer": "" if item.outcome.value is None else _short(item.outcome.value),
        "reason": item.outcome.reason,
    }


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 140 else text[:139] + "…"


def _show(
    project: Project, ledger: Ledger, run: RunRow, item: ReviewItem, *, as_json: bool = False
) -> None:
    from tierwise.review.queue import find_texts, reply_text

    text = find_texts(ledger, project, run, [item.document_hash]).get(item.document_hash)
    answers = [reply_text(ledger, attempt) for attempt in item.outcome.attempts]
    if as_json:
        print_json(_data(item) | {"text": text, "answers": answers})
        return
    out = console()
    out.rule(
        f"{item.document_id} · {item.step} · {item.outcome.sensitivity} · {item.outcome.status}"
    )
    missing = "(the text is not kept, and not found in the run's source)"
    out.print(missing if text is None else _printable(text), markup=False)
    for number, (attempt, answer) in enumerate(zip(item.outcome.attempts, answers, strict=True), 1):
        out.rule(f"attempt {number}: {attempt.model} ({attempt.kind})", align="left", style="dim")
        out.print(_printable(_no_answer(attempt) if answer is None else answer), markup=False)
        for verdict in attempt.verdicts:
            if verdict.passed is False:
                reason = f": {verdict.reason}" if verdict.reason else ""
                out.print(_printable(f"failed {verdict.check}{reason}"), markup=False, style="red")
    if item.outcome.value is not None:
        out.rule("the answer as it stands", align="left", style="dim")
        out.print(
            _printable(json.dumps(item.outcome.value, indent=2, ensure_ascii=False)), markup=False
        )
    out.rule(align="left", style="dim")
    out.print(_printable(f"{item.outcome.status}: {item.outcome.reason}"), markup=False)
    for decision in item.decisions:
        out.print(
            f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(decision.reviewed_at))}  {decision.says}",
            markup=False,
        )


def _printable(text: str) -> str:
    """A text whose control characters are spelt out: a document must not command the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def _no_answer(attempt: Attempt) -> str:
    return (
        f"{attempt.error}: {attempt.error_text}"
        if attempt.error
        else "(the answer is no longer kept)"
    )


def _one_by_one(project: Project, ledger: Ledger, run: RunRow, step: str | None, by: str) -> None:
    """Show what waits, one after the other, and do what the keys say."""
    from tierwise.review import queue

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Misuse(
            "-i asks at a terminal; in a script, name the document and give --approve, --edit or --reject"
        )
    items = list(queue.waiting(ledger, run.id, step))
    decided = 0
    for number, item in enumerate(items, 1):
        _show(project, ledger, run, item)
        key = _key(f"{number} of {len(items)}   a approve   e edit   r reject   s skip   q quit ")
        while key in "aer":
            try:
                if key == "a":
                    decision = queue.approve(ledger, item, None, by=by)
                elif key == "e":
                    decision = queue.edit(ledger, item, _edited(item), by=by)
                else:
                    decision = queue.reject(
                        ledger,
                        item,
                        by=by,
                        note=typer.prompt("Why", default="", show_default=False),
                    )
            except Misuse as error:
                typer.echo(f"not done: {error}")
                key = _key("a approve   e edit   r reject   s skip   q quit ")
                continue
            typer.echo(f"{item.document_id}, {item.step}: {decision.says}")
            decided += 1
            break
        if key == "q":
            break
    waits = f"{len(items) - decided} still wait" if items else "nothing waits"
    typer.echo(
        f"{decided} decided, {waits}."
        + (f" Go on with: tierwise retry {run.id}" if decided else "")
    )


def _key(prompt: str) -> str:
    """One of the keys a, e, r, s and q."""
    typer.echo(prompt, nl=False)
    key = ""
    while key not in ("a", "e", "r", "s", "q"):
        key = typer.getchar().lower()
        if key in ("\x03", "\x04"):
            raise KeyboardInterrupt
    typer.echo(key)
    return key


def _given(edit: str) -> str:
    """The JSON of `--edit`: itself, a file's, or the standard input's."""
    if edit == "-":
        return sys.stdin.read()
    if edit.lstrip().startswith("{"):
        return edit
    try:
        return Path(edit).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(
            f"--edit takes JSON or the name of a file with JSON; {edit}: {error}"
        ) from None


def _edited(item: ReviewItem) -> str:
    """What a person makes of the answer in an editor."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    value = item.outcome.value if item.outcome.value is not None else {}
    with tempfile.TemporaryDirectory() as folder:  # nobody else may read it, and it goes afterwards
        path = Path(folder) / "answer.json"
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        try:
            code = subprocess.call([*shlex.split(command), str(path)])  # noqa: S603 - the user's own editor
        except OSError as error:
            raise Misuse(
                f"the editor '{command}' does not start: {error.strerror}; set EDITOR"
            ) from None
        if code:
            raise Misuse(f"the editor '{command}' ended with {code}; nothing was decided")
        return path.read_text(encoding="utf-8")


def user_name() -> str:
    """The user's name on this machine. Raises Misuse where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise Misuse("nobody knows your user name here; say who decides with --by") from None


def _data(item: ReviewItem) -> dict[str, Any]:
    outcome = item.outcome
    return {
        "run": item.run_id,
        "document": item.document_id,
        "hash": item.document_hash,
        "step": item.step,
        "status": outcome.status,
        "reason": outcome.reason,
        "sensitivity": outcome.sensitivity,
        "value": outcome.value,
        "cost_usd": outcome.cost,
        "attempts": [
            {
                "model": attempt.model,
                "kind": attempt.kind,
                "error": attempt.error,
                "failed": {v.check: v.reason for v in attempt.verdicts if v.passed is False},
                "cost_usd": attempt.cost,
            }
            for attempt in outcome.attempts
        ],
        "decisions": [_decision_data(decision) for decision in item.decisions],
    }


def _decision_data(decision: Decision) -> dict[str, Any]:
    return {
        "decision": decision.decision,
        "value": decision.value,
        "by": decision.reviewer,
        "at": decision.reviewed_at,
        "note": decision.note,
    }
