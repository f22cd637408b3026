"""`tierwise review`: a person's decisions about deferred answers."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import (
    AsJson,
    DecidedBy,
    OnlyCause,
    OnlyFlow,
    OnlyStep,
    WaitingLonger,
)
from tierwise.cli.output import print_json
from tierwise.cli.person import user_name
from tierwise.errors import Misuse, UnknownName

if TYPE_CHECKING:
    from tierwise.ledger import Decision, Ledger, RunRow
    from tierwise.project import Project
    from tierwise.review.backlog import QueueFilter
    from tierwise.review.queue import ReviewItem

_KEYS = "a approve   e edit   r reject   s skip   q quit "
_MOST_LISTED = 50  # documents of a queue
_DECIDE = "Decide about one document"  # the panel of these options


def review(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run's id, the beginning of an id, or `latest`; or a document that waits. "
            "Default: all runs.",
        ),
    ] = None,
    document: Annotated[
        str | None,
        typer.Argument(
            metavar="DOCUMENT", help="The id of a document to show, or to decide on."
        ),
    ] = None,
    flow: OnlyFlow = None,
    cause: OnlyCause = None,
    older_than: WaitingLonger = None,
    step: OnlyStep = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            help="List at most this number of a queue; default: 50, with --json all.",
        ),
    ] = None,
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive", "-i", help="Decide on all in turn, a key for each."
        ),
    ] = False,
    as_json: AsJson = False,
    approve: Annotated[
        bool,
        typer.Option(
            "--approve", help="Accept the last answer.", rich_help_panel=_DECIDE
        ),
    ] = False,
    attempt: Annotated[
        int | None,
        typer.Option(
            "--attempt",
            metavar="NUMBER",
            help="With --approve: accept the answer of this attempt.",
            rich_help_panel=_DECIDE,
        ),
    ] = None,
    edit: Annotated[
        str | None,
        typer.Option(
            "--edit",
            metavar="ANSWER",
            help="Accept this answer: JSON, a file with JSON, or - for standard input.",
            rich_help_panel=_DECIDE,
        ),
    ] = None,
    editor: Annotated[
        bool,
        typer.Option(
            "--editor",
            help="Write the answer in your editor ($EDITOR).",
            rich_help_panel=_DECIDE,
        ),
    ] = False,
    reject: Annotated[
        bool,
        typer.Option(
            "--reject",
            help="Accept no answer; later steps skip the document.",
            rich_help_panel=_DECIDE,
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Ask the models once more with the next `tierwise retry`.",
            rich_help_panel=_DECIDE,
        ),
    ] = False,
    reopen: Annotated[
        bool,
        typer.Option(
            "--reopen", help="Take back the last decision.", rich_help_panel=_DECIDE
        ),
    ] = False,
    note: Annotated[
        str,
        typer.Option("--note", help="Why, for the record.", rich_help_panel=_DECIDE),
    ] = "",
    by: DecidedBy = None,
) -> None:
    """Approve, edit or reject the deferred answers.

    `tierwise review` lists what waits over all runs, by flow, the longest wait first.
    `tierwise review RUN` lists one run's deferred documents. `tierwise review RUN DOCUMENT` shows
    the text, every answer and its failed checks. With `--approve`, `--edit` or `--reject` it
    records a decision, which applies at once, and in later runs to the same question about the same
    text. Then `tierwise retry RUN` or `tierwise retry --all` runs the later steps.
    """
    from tierwise.cli.render.review import print_decision
    from tierwise.cli.waiting import queue_filter
    from tierwise.review.queue import find_item, waiting

    # --edit with an empty text is an edit, too: hence `is not None`.
    decisions = [approve, edit is not None, editor, reject, again, reopen]
    _check_options(decisions, attempt, approve=approve)
    wanted = queue_filter(flow, cause, older_than, step)
    if run is not None and (flow or cause or older_than):
        raise Misuse(
            "--flow, --cause and --older-than select from all runs; leave out the run"
        )
    project = find_project()
    with open_ledger(project) as ledger:
        if run is None:
            if any(decisions):
                raise Misuse(
                    "name the document that you decide about: tierwise review RUN DOCUMENT"
                )
            _review_all(
                project,
                ledger,
                wanted,
                limit,
                by or user_name(),
                interactive=interactive,
                as_json=as_json,
            )
            return
        row, document = _find_run(project, ledger, run, document)
        if any(decisions) and document is None:
            raise Misuse(
                "name the document that you decide about: tierwise review RUN DOCUMENT"
            )
        if document is None and interactive:
            items = list(waiting(ledger, row.id, step))
            _decide_in_turn(project, ledger, items, by or user_name())
        elif document is None:
            items = list(waiting(ledger, row.id, step))[:limit]
            _list(items, row, as_json=as_json)
        elif any(decisions):
            item = find_item(ledger, row.id, document, step)
            # Read before anything is recorded: an editor or a file may fail.
            answer = _answer_of(ledger, item, edit, editor=editor)
            decision = _decide(
                ledger,
                item,
                answer,
                approve,
                attempt,
                reject,
                again,
                by=by or user_name(),
                note=note,
            )
            print_decision(decision, as_json=as_json)
        else:
            item = find_item(ledger, row.id, document, step)
            _show(project, ledger, row, item, as_json=as_json)


def _find_run(
    project: Project, ledger: Ledger, name: str, document: str | None
) -> tuple[RunRow, str | None]:
    """Return the run and document of the arguments; a document that waits may be named alone."""
    from tierwise.review.backlog import read_backlog, run_of_waiting

    try:
        return ledger.runs.resolve(name), document
    except UnknownName:
        if document is not None:
            raise
        backlog = read_backlog(ledger, project)
        if not any(
            row.document_id == name for row in (*backlog.waiting, *backlog.decided)
        ):
            raise
    return ledger.runs.resolve(run_of_waiting(backlog, name)), name


def _review_all(
    project: Project,
    ledger: Ledger,
    wanted: QueueFilter,
    limit: int | None,
    by: str,
    *,
    interactive: bool,
    as_json: bool,
) -> None:
    """List what waits over all runs, or decide it in turn."""
    from tierwise.cli.render.backlog import backlog_data, print_backlog
    from tierwise.cli.waiting import nothing_waits
    from tierwise.review.backlog import read_backlog, read_items

    backlog = read_backlog(ledger, project, wanted)
    if interactive:
        items = read_items(ledger, backlog.waiting[:limit])
        _decide_in_turn(project, ledger, items, by)
        return
    if as_json:
        rows = backlog.waiting[:limit]
        print_json(backlog_data(rows, read_items(ledger, rows)))
        return
    rows = backlog.waiting[: limit or _MOST_LISTED]
    print_backlog(backlog, rows, read_items(ledger, rows), nothing_waits(ledger))


def _check_options(
    decisions: list[bool], attempt: int | None, *, approve: bool
) -> None:
    """Raise Misuse for options that do not go together."""
    if sum(decisions) > 1:
        raise Misuse(
            "decide once: only one of --approve, --edit, --editor, --reject, --again and --reopen"
        )
    if attempt is not None and not approve:
        raise Misuse(
            "--attempt goes with --approve: it names the attempt whose answer is taken"
        )


def _list(items: list[ReviewItem], run: RunRow, *, as_json: bool) -> None:
    from tierwise.cli.render.review import item_data, print_queue

    if as_json:
        print_json([item_data(item) for item in items])
    else:
        print_queue(items, run)


def _show(
    project: Project,
    ledger: Ledger,
    run: RunRow,
    item: ReviewItem,
    *,
    as_json: bool = False,
) -> None:
    """Print one document in full."""
    from tierwise.cli.render.review import item_data, print_item
    from tierwise.review.queue import find_texts, reply_text

    text = find_texts(ledger, project, run, [item.document_hash]).get(
        item.document_hash
    )
    # One for each attempt, in the same order; None where a call failed.
    answers = [reply_text(ledger, attempt) for attempt in item.outcome.attempts]
    if as_json:
        print_json(item_data(item) | {"text": text, "answers": answers})
    else:
        print_item(item, text, answers)


def _decide(
    ledger: Ledger,
    item: ReviewItem,
    answer: str | None,
    approve: bool,
    attempt: int | None,
    reject: bool,
    again: bool,
    *,
    by: str,
    note: str,
) -> Decision:
    """Record the decision that the options name."""
    from tierwise.review import queue

    person = queue.By(by, note)
    if approve:
        return queue.approve(ledger, item, attempt, by=person)
    if answer is not None:
        return queue.edit(ledger, item, answer, by=person)
    if reject:
        return queue.reject(ledger, item, by=person)
    if again:
        return queue.send_again(ledger, item, by=person)
    # The only option that is left: the caller comes here with one of them.
    return queue.reopen(ledger, item, by=person)


def _decide_in_turn(
    project: Project, ledger: Ledger, items: list[ReviewItem], by: str
) -> None:
    """Show one document after the other, and record the decision of the key that is pressed."""
    # Keys are read one by one, which a pipe cannot give.
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Misuse(
            "-i asks at a terminal; in a script, name the document and give --approve, --edit "
            "or --reject"
        )
    runs: dict[str, RunRow] = {}
    decided: list[str] = []  # the runs of the decisions
    for number, item in enumerate(items, 1):
        if item.run_id not in runs:
            runs[item.run_id] = ledger.runs.resolve(item.run_id)
        _show(project, ledger, runs[item.run_id], item)
        key = _key(f"{number} of {len(items)}   {_KEYS}")
        decision = None
        # Again after a mistake; s and q leave the loop without a decision.
        while decision is None and key in "aer":
            try:
                decision = _decide_by_key(ledger, item, key, by)
            except Misuse as error:
                # such as an edited answer that does not fit the schema
                typer.echo(f"not done: {error}")
                key = _key(_KEYS)
        if decision:
            typer.echo(f"{item.document_id}, {item.step}: {decision.says}")
            decided.append(item.run_id)
        if key == "q":
            break
    rest = "nothing waits"
    if items:
        rest = f"{len(items) - len(decided)} still wait"
    line = f"{len(decided)} decided, {rest}."
    if decided:
        again = decided[0] if len(set(decided)) == 1 else "--all"
        line += f" Continue with: tierwise retry {again}"
    typer.echo(line)


def _decide_by_key(ledger: Ledger, item: ReviewItem, key: str, by: str) -> Decision:
    from tierwise.review import queue

    if key == "a":
        return queue.approve(ledger, item, None, by=by)
    if key == "e":
        return queue.edit(ledger, item, _write_in_editor(ledger, item), by=by)
    # Only a rejection asks for its reason: an answer speaks for itself.
    note = typer.prompt("Why", default="", show_default=False)
    return queue.reject(ledger, item, by=queue.By(by, note))


def _key(prompt: str) -> str:
    """Wait for one of the keys a, e, r, s and q, and return it."""
    typer.echo(prompt, nl=False)
    key = ""
    while key not in ("a", "e", "r", "s", "q"):
        key = typer.getchar().lower()
        # A terminal in raw mode sends these as characters, not as signals.
        if key in ("\x03", "\x04"):  # Ctrl-C and Ctrl-D
            raise KeyboardInterrupt
    typer.echo(key)
    return key


def _answer_of(
    ledger: Ledger, item: ReviewItem, edit: str | None, *, editor: bool
) -> str | None:
    """Return the answer that a person gives, as JSON text, or None without one."""
    if editor:
        return _write_in_editor(ledger, item)
    if edit is None:
        return None
    if edit == "-":
        return sys.stdin.read()
    # An answer is always an object, so anything else is a file's name.
    if edit.lstrip().startswith("{"):
        return edit
    try:
        # Windows editors put a byte order mark first, which utf-8-sig drops.
        return Path(edit).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(
            f"--edit takes JSON or the name of a file with JSON; {edit}: {error}"
        ) from None


def _write_in_editor(ledger: Ledger, item: ReviewItem) -> str:
    """Open the current answer in the person's editor, and return what is saved there.

    Of an answer with open fields, these alone.
    """
    from tierwise.review.queue import draft

    # The usual order of Unix programs.
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    value = draft(ledger, item)  # empty without an answer: the person writes one
    # Only the user may read this folder, and it is removed afterwards.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.json"
        path.write_text(
            json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        try:
            code = subprocess.call([*shlex.split(command), str(path)])  # noqa: S603 - the user's own editor
        except OSError as error:
            raise Misuse(
                f"the editor '{command}' does not start: {error.strerror}; set EDITOR"
            ) from None
        if code:
            raise Misuse(
                f"the editor '{command}' ended with {code}; nothing was decided"
            )
        return path.read_text(encoding="utf-8-sig")
