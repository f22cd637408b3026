"""The review queue: what waits for a person, one item with its forms, and decisions."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from tierwise.desk.access import Person, Reviewer, Viewer
from tierwise.desk.addresses import to_parameter
from tierwise.desk.answer_checks import failed_checks
from tierwise.desk.desk import Desk, TheDesk
from tierwise.desk.forms import Field, answer_of, fields_of, open_first
from tierwise.desk.marks import Part, marked
from tierwise.desk.notices import Notice
from tierwise.desk.pages.run import find_run
from tierwise.desk.queue_view import (
    ORDERS,
    ItemKey,
    QueueView,
    Selection,
    existing,
    key_of,
    next_after,
    read_queue,
)
from tierwise.errors import DecidedMeanwhile, Misuse, UnknownName
from tierwise.ledger import Decision
from tierwise.ledger.people.decisions import COMMENT, Version
from tierwise.ledger.views.waiting import NO_TEXT, WaitingRow
from tierwise.records import Verdict, highest
from tierwise.review import bulk
from tierwise.review.queue import (
    By,
    ReviewItem,
    answer_to_approve,
    approve,
    comment,
    draft,
    edit,
    find_item,
    find_text,
    kept_fields,
    reject,
    reply_text,
    send_again,
)

router = APIRouter()
_MOST_LISTED = 50
_LONGEST_TEXT = 200_000  # characters on a page
_LONGEST_NOTE = 10_000
_LONGEST_KEY = 100
_ACTION_S = 300.0
_BULK_WORDS = ("approved", "rejected", "again")


@dataclass(frozen=True, kw_only=True)
class LastAction:
    """A person's action that can be taken back: what was done to which document, or to how many."""

    request: str
    subject: str
    word: str


@dataclass(frozen=True, kw_only=True)
class AttemptView:
    """One attempt as a reviewer reads it."""

    model: str
    kind: str
    answer: str | None
    faults: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ItemView:
    """One item as a person may see it. Where `is_shown` is false, nothing quotes the document."""

    key: ItemKey
    item: ReviewItem
    is_shown: bool
    may_decide: bool
    text: Sequence[Part] | None
    is_cut: bool
    fields: Sequence[Field]
    answer: str | None  # as JSON, which an approval takes
    attempts: Sequence[AttemptView]
    decisions: Sequence[Decision]

    @property
    def is_unread(self) -> bool:
        """True for a file that could not be read, so that it never had a text."""
        return self.item.document_hash == NO_TEXT or bool(self.why_unread)

    @property
    def why_unread(self) -> str:
        """Why the file could not be read; empty where another outcome replaced that one."""
        outcome = self.item.outcome
        return outcome.reason if outcome.cause == "unreadable" else ""


@router.get("/review")
def queue_page(desk: TheDesk, request: Request, person: Viewer) -> Response:
    """Return the list of what waits, as selected."""
    selection = Selection.of(request.query_params)
    view = _queue(desk, selection)
    return desk.page(
        request,
        "queue.html.j2",
        view=view,
        rows=view.rows[:_MOST_LISTED],
        keys=[ItemKey.of(row) for row in view.rows[:_MOST_LISTED]],
        selection=selection,
        orders=ORDERS,
        notice=_notice(desk, request, person),
        last=_last_action(desk, person),
        seen=desk.ledger.reviews.last_number(),
        request_id=uuid.uuid4().hex,
        undo_id=uuid.uuid4().hex,
        most=bulk.MOST_AT_ONCE,
        shown_at=time.time(),
    )


@router.get("/review/item")
def item_page(desk: TheDesk, request: Request, person: Viewer) -> Response:
    """Return one item."""
    selection = Selection.of(request.query_params)
    key = key_of(request.query_params)
    return _item_page(
        desk, request, person, selection, key, _notice(desk, request, person)
    )


@router.post("/review/decide")
def decide(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Record one decision, and go to the next item."""
    form = request.state.form
    selection = Selection.of(form)
    key = key_of(form)
    before = _queue(desk, selection)
    try:
        item = find_item(desk.ledger, key.run_id, key.document_id, key.step)
        _require_sight(desk, person, item)
        decision = _decide(desk, item, person, form)
    except DecidedMeanwhile as error:
        notice = Notice(text=str(error), is_fault=True, decisions=error.decisions)
        return _item_page(desk, request, person, selection, key, notice, 409)
    except _FailedChecks as error:
        notice = Notice(
            text="Nothing was recorded yet: the answer fails checks.",
            is_fault=True,
            failed=error.verdicts,
        )
        return _item_page(desk, request, person, selection, key, notice, 422, form)
    except (HTTPException, UnknownName):
        raise
    except Misuse as error:
        notice = Notice(text=f"Nothing was recorded: {error}", is_fault=True)
        return _item_page(desk, request, person, selection, key, notice, 422, form)
    if decision.decision == "commented":
        return _to(selection.address(key, done=decision.request or ""))
    following = next_after(before, _queue(desk, selection), key)
    return _to(selection.address(following, done=decision.request or ""))


@router.post("/review/undo")
def undo(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Take the person's own last action back, and go to its item."""
    form = request.state.form
    selection = Selection.of(form)
    action = str(form.get("action") or "")
    done = desk.ledger.reviews.action(action)
    if not done or any(each.reviewer != person.name for each in done):
        raise HTTPException(403, "people take back their own decisions only")
    # The same undo that arrives twice is one: it is named after what it takes back.
    undo_id = str(form.get("request") or f"undo-{action}")
    recorded = desk.ledger.reviews.undo(action, by=person.name, undo=undo_id)
    if recorded.decisions and len(done) == 1:
        first = recorded.decisions[0]
        key = ItemKey(first.run_id, first.document_id, first.step)
        return _to(selection.address(key, done=undo_id))
    more = {"kept": str(len(recorded.refused))} if recorded.refused else {}
    return _to(selection.address(None, done=undo_id, **more))


@router.post("/review/bulk")
def decide_many(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Record one decision about all that the selection showed, as one action."""
    form = request.state.form
    selection = Selection.of(form)
    word = str(form.get("word") or "")
    if word not in _BULK_WORDS:
        raise Misuse("choose what to do with all of these")
    view = _queue(desk, selection)
    shown_at, seen = _as_shown(form)
    rows = existing(view.rows, shown_at)
    bulk.refuse_too_many(rows)
    rows = _visible(desk, person, rows)
    by = By(
        person.name,
        _note(form),
        request=_request_id(form),
        seen=Version(seen).text,
    )
    done = bulk.decide(
        desk.ledger,
        rows,
        word,  # type: ignore[arg-type] # checked above
        by=by,
        selection={**selection.chosen, "items": len(rows)},
    )
    more = {}
    if done.refused:
        more["kept"] = str(len(done.refused))
    if done.without_answer:
        more["without"] = str(len(done.without_answer))
    return _to(selection.address(None, done=by.request or "", **more))


class _FailedChecks(Exception):
    """An edited answer that fails checks, and that the person has not confirmed."""

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        super().__init__("the answer fails checks")
        self.verdicts = verdicts


def _decide(
    desk: Desk, item: ReviewItem, person: Person, form: Mapping[str, Any]
) -> Decision:
    """Record the decision of a form. Raises Misuse, DecidedMeanwhile."""
    by = By(
        person.name,
        _note(form),
        request=_request_id(form),
        seen=str(form.get("seen") or ""),
    )
    word = form.get("word")
    if word == "approve":
        return approve(desk.ledger, item, None, by=by)
    if word == "reject":
        return reject(desk.ledger, item, by=by)
    if word == "again":
        return send_again(desk.ledger, item, by=by)
    if word == "comment":
        return comment(desk.ledger, item, by=by)
    if word != "edit":
        raise Misuse("the form names no decision")
    schema = desk.ledger.reviews.schema(item.question or "") or {}
    answer = answer_of(schema, form)
    if not form.get("although"):
        text = _text(desk, item)
        failed = failed_checks(desk.project, item, answer, text)
        if failed:
            raise _FailedChecks(failed)
    return edit(desk.ledger, item, json.dumps(answer), by=by)


def _item_page(
    desk: Desk,
    request: Request,
    person: Person,
    selection: Selection,
    key: ItemKey,
    notice: Notice | None,
    status: int = 200,
    entered: Mapping[str, str] | None = None,
) -> Response:
    queue = _queue(desk, selection)
    try:
        item = find_item(desk.ledger, key.run_id, key.document_id, key.step)
    except UnknownName:
        raise HTTPException(404, "there is no such item") from None
    before, after = queue.neighbours(key)
    place = queue.place(key)
    return desk.page(
        request,
        "item.html.j2",
        status,
        view=_item_view(desk, person, key, item, entered),
        queue=queue,
        place=place,
        selection=selection,
        before=before,
        after=after,
        notice=notice,
        last=_last_action(desk, person),
        request_id=uuid.uuid4().hex,
        undo_id=uuid.uuid4().hex,
        document_parameter=to_parameter(key.document_id),
    )


def _item_view(
    desk: Desk,
    person: Person,
    key: ItemKey,
    item: ReviewItem,
    entered: Mapping[str, str] | None,
) -> ItemView:
    """Return what a person may see of an item."""
    is_shown = desk.access.may_see(person, _sensitivity(desk, item))
    may_decide = is_shown and person.is_at_least("reviewer")
    if not is_shown:
        outcome = replace(item.outcome, reason="", value=None, attempts=())
        return ItemView(
            key=key,
            item=replace(item, outcome=outcome),
            is_shown=False,
            may_decide=False,
            text=None,
            is_cut=False,
            fields=(),
            answer=None,
            attempts=(),
            decisions=[replace(each, note="", value=None) for each in item.decisions],
        )
    value = item.outcome.value
    answer = None
    try:
        value = answer_to_approve(desk.ledger, item).value
        answer = json.dumps(value, indent=2, ensure_ascii=False)
    except Misuse:
        # no answer that fits: the person writes one, or rejects
        if item.outcome.open_fields:
            value = {**draft(desk.ledger, item), **kept_fields(item)}
    text = _text(desk, item)
    schema = desk.ledger.reviews.schema(item.question or "") or {}
    parts = None if text is None else marked(text[:_LONGEST_TEXT], {"answer": value})
    return ItemView(
        key=key,
        item=item,
        is_shown=True,
        may_decide=may_decide,
        text=parts,
        is_cut=text is not None and len(text) > _LONGEST_TEXT,
        fields=open_first(fields_of(schema, value, entered), item.outcome),
        answer=answer,
        attempts=[_attempt_view(desk, each) for each in item.outcome.attempts],
        decisions=item.decisions,
    )


def _attempt_view(desk: Desk, attempt: Any) -> AttemptView:
    faults = []
    for verdict in attempt.verdicts:
        if verdict.passed is False:
            reason = f": {verdict.reason}" if verdict.reason else ""
            faults.append(f"failed {verdict.check}{reason}")
    if attempt.error:
        faults.append(attempt.error)
    return AttemptView(
        model=attempt.model,
        kind=attempt.kind,
        answer=reply_text(desk.ledger, attempt),
        faults=faults,
    )


def _text(desk: Desk, item: ReviewItem) -> str | None:
    if item.document_hash == NO_TEXT:
        return None  # every document without a text would be found by this hash
    run = find_run(desk, item.run_id)
    return find_text(
        desk.ledger, desk.project, run, item.document_id, item.document_hash
    )


def _sensitivity(desk: Desk, item: ReviewItem) -> Any:
    """Return the strictest level of a document: what is derived from it is as sensitive."""
    levels = desk.ledger.reviews.levels(item.run_id, [item.document_id])
    return highest(item.outcome.sensitivity, *levels[item.document_id])


def _visible(
    desk: Desk, person: Person, rows: Sequence[WaitingRow]
) -> list[WaitingRow]:
    """Return the rows of documents that a person may read."""
    of_runs: dict[str, list[WaitingRow]] = {}
    for row in rows:
        of_runs.setdefault(row.run_id, []).append(row)
    visible: set[ItemKey] = set()
    for run_id, of_run in of_runs.items():
        levels = desk.ledger.reviews.levels(run_id, (row.document_id for row in of_run))
        for row in of_run:
            of_row = levels[row.document_id]
            if all(desk.access.may_see(person, level) for level in of_row):
                visible.add(ItemKey.of(row))
    return [row for row in rows if ItemKey.of(row) in visible]


def _require_sight(desk: Desk, person: Person, item: ReviewItem) -> None:
    """Refuse a decision about a document that the person may not read."""
    if not desk.access.may_see(person, _sensitivity(desk, item)):
        raise HTTPException(403, "your role may not read this document")


def _queue(desk: Desk, selection: Selection) -> QueueView:
    return read_queue(desk, desk.queue, selection)


def _note(form: Mapping[str, Any]) -> str:
    """Return the note of a form. Raises Misuse for one that is a text of its own."""
    note = str(form.get("note") or "").strip()
    if len(note) > _LONGEST_NOTE:
        raise Misuse(f"a note has at most {_LONGEST_NOTE:,} characters")
    return note


def _request_id(form: Mapping[str, Any]) -> str:
    """Return the form's key. Raises Misuse for one that no page made."""
    key = str(form.get("request") or uuid.uuid4().hex)
    if len(key) > _LONGEST_KEY:
        raise Misuse("the form is not as the page made it; load it again")
    return key


def _as_shown(form: Mapping[str, Any]) -> tuple[float, int]:
    """Return when a list was shown, and the last decision then. Raises Misuse."""
    try:
        return float(form.get("shown_at") or 0), int(form.get("seen") or 0)
    except ValueError:
        raise Misuse("the form is not as the page made it; load it again") from None


def _last_action(desk: Desk, person: Person) -> LastAction | None:
    """Return the person's last action that can be taken back; a comment is none."""
    request = desk.ledger.reviews.last_request(person.name)
    if request is None:
        return None
    # An action of many items is read once: nothing is added to it later.
    key = ("action", request)
    return desk.kept.get(key, lambda: _read_action(desk, request), _ACTION_S)


def _read_action(desk: Desk, request: str) -> LastAction:
    done = desk.ledger.reviews.action(request)
    decisions = [each for each in done if each.decision != COMMENT]
    first = decisions[0]
    subject = first.document_id
    if len(decisions) > 1:
        subject = f"{len(decisions):,} items"
    word = _SHORT_PAST.get(first.decision, first.decision)
    return LastAction(request=request, subject=subject, word=word)


def _notice(desk: Desk, request: Request, person: Person) -> Notice | None:
    """Return what the person's last action did, as the address names it."""
    done = desk.ledger.reviews.action(request.query_params.get("done", ""))
    done = [each for each in done if each.reviewer == person.name]
    without = request.query_params.get("without", "")
    left_out = ""
    if without.isdecimal():
        left_out = f"{without} have no answer to decide about, and still wait"
    if not done:
        return Notice(text=f"Nothing was decided: {left_out}") if left_out else None
    first = done[0]
    what = "taken back" if first.undoes else _PAST.get(first.decision, first.decision)
    subject = first.document_id if len(done) == 1 else f"{len(done)} items"
    text = f"{subject}: {what}"
    kept = request.query_params.get("kept", "")
    if kept.isdecimal():
        text += f"; {kept} others were decided meanwhile and stay as they are"
    if left_out:
        text += f"; {left_out}"
    return Notice(text=text)


_SHORT_PAST = {"again": "sent again"}
_PAST = {
    "again": "sent again with the next `tierwise retry`",
    "commented": "comment added",
}


def _to(address: str) -> RedirectResponse:
    return RedirectResponse(address, 303)
