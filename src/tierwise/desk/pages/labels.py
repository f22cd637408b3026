"""Labels of sampled answers: blind or with the answers, by one person or by two and a third."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from tierwise.desk.access import Person, Reviewer, Viewer
from tierwise.desk.desk import Desk, TheDesk
from tierwise.desk.forms import answer_of, fields_of
from tierwise.desk.labelling import (
    SampledOutcome,
    items_for,
    labels_by_step,
    may_see,
    order_of,
    outcome_of,
    word_of_answer,
)
from tierwise.desk.marks import marked
from tierwise.desk.notices import Notice
from tierwise.errors import DecidedMeanwhile, Misuse, TierwiseError
from tierwise.ledger.people.labels import Labeller, People, Right
from tierwise.ledger.people.samples import Item
from tierwise.review.golden_rows import add_golden_rows
from tierwise.review.queue import find_texts, fitting_answer
from tierwise.review.sampled_rows import write_sampled_rows

router = APIRouter()
_LONGEST_TEXT = 200_000
_TITLES: Mapping[Right, str] = {
    "accepted": "The answer in use is right",
    "shadow": "The other answer is right",
    "both": "Both are right",
    "neither": "Neither is right",
}
_KEYS: Mapping[Right, str] = {
    "accepted": "a",
    "shadow": "s",
    "both": "b",
    "neither": "n",
}


@router.get("/labels")
def labels_page(desk: TheDesk, request: Request, person: Viewer) -> Response:
    """Return what waits for a label, how far people agree, and what labels would settle."""
    return _labels_page(desk, request, person, None)


@router.get("/labels/next")
def next_label(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Go to the next item of this person: the one that most likely settles something."""
    query = request.query_params
    step = query.get("step") or None
    skipped = set(query.getlist("skip"))
    order = order_of(desk, step)
    labels = desk.ledger.samples.labels(step)
    for item in items_for(order, labels, person.name, _people(desk)):
        if item.id not in skipped and may_see(desk, person, item):
            more = {"id": item.id, "done": query.get("done", "")}
            return _to("/labels/item", {**_mode(query), **more})
    return _to("/labels", {"done": query.get("done", ""), "none": "1"})


@router.get("/labels/item")
def label_page(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Return one item to label."""
    query = request.query_params
    item = desk.ledger.samples.item(query.get("id", ""))
    done = query.get("done", "")
    notice = Notice(text=f"Labelled: {done}") if done else None
    return _item_page(desk, request, person, item, query, notice)


@router.post("/labels/label")
def label(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Record a label, and go to the next item."""
    form = request.state.form
    item = desk.ledger.samples.item(str(form.get("item") or ""))
    if not may_see(desk, person, item):
        raise HTTPException(403, "your role may not read this document")
    is_blind = form.get("mode") == "blind"
    try:
        answer = _answer(desk, item, form)
        word = _word(desk, item, form, answer)
        if word is None:
            # No program can compare the answers: now the person does, with the own answer kept.
            notice = Notice(text="Your answer is kept. Which of these agrees with it?")
            return _item_page(desk, request, person, item, form, notice, own=answer)
        labeller = Labeller(
            name=person.name,
            people=_people(desk),
            request=str(form.get("request") or uuid.uuid4().hex)[:80],
            is_blind=is_blind,
            answer=answer,
        )
        desk.ledger.samples.label(item.id, word, labeller)
    except DecidedMeanwhile as error:
        notice = Notice(text=str(error), is_fault=True)
        return _item_page(desk, request, person, item, form, notice, 409)
    except Misuse as error:
        notice = Notice(text=f"Nothing was recorded: {error}", is_fault=True)
        return _item_page(desk, request, person, item, form, notice, 422)
    return _to("/labels/next", {**_mode(form), "done": item.accepted.document_id})


@router.post("/labels/undo")
def undo(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Take the person's own last label back, and show its item."""
    form = request.state.form
    item_id = str(form.get("item") or "")
    own_request = str(form.get("request") or uuid.uuid4().hex)
    item = desk.ledger.samples.undo_label(item_id, person.name, own_request)
    return _to("/labels/item", {**_mode(form), "id": item.id})


@router.post("/labels/golden")
def grow_golden_set(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Write the labelled samples of a step, or a run's reviewed answers, as golden rows.

    Confidential texts are left out, as these files are meant for version control.
    """
    form = request.state.form
    step = str(form.get("step") or "")
    run = str(form.get("run") or "")
    try:
        if run:
            row = desk.ledger.runs.resolve(run)
            added = add_golden_rows(
                desk.ledger,
                desk.project,
                row,
                step or None,
                suffix="",
                confidential=False,
            )
            root = desk.project.root
            lines = [
                f"{count} rows added to {path.relative_to(root)}"
                for path, count in added.written.items()
            ]
            text = "; ".join(lines) or "nothing was added"
            left_out = added.left_out
        else:
            written = write_sampled_rows(
                desk.ledger, desk.project, step, {}, confidential=False
            )
            path = written.path.relative_to(desk.project.root)
            text = f"{written.rows} rows in {path}; next: tierwise certify {step} --golden {path}"
            left_out = written.left_out
    except TierwiseError as error:
        return _labels_page(
            desk, request, person, Notice(text=str(error), is_fault=True), 422
        )
    lines = [f"{document} was left out: {reason}" for document, reason in left_out[:20]]
    return _labels_page(desk, request, person, Notice(text=text, lines=lines))


def _labels_page(
    desk: Desk,
    request: Request,
    person: Person,
    notice: Notice | None,
    status: int = 200,
) -> Response:
    query = request.query_params
    if notice is None and query.get("none"):
        notice = Notice(text="Nothing more waits for a label by you.")
    people = _people(desk)
    order = order_of(desk)
    labels = desk.ledger.samples.labels()
    return desk.page(
        request,
        "labels.html.j2",
        status,
        steps=labels_by_step(order, labels, person.name, people),
        people=people,
        notice=notice,
        last=_last_item(labels, person.name),
        undo_id=uuid.uuid4().hex,
        is_sampling=bool(desk.project.rules.shadow.share),
    )


def _item_page(
    desk: Desk,
    request: Request,
    person: Person,
    item: Item,
    values: Mapping[str, Any],
    notice: Notice | None,
    status: int = 200,
    own: Any = None,
) -> Response:
    outcome = outcome_of(desk, item)
    if not desk.access.may_see(person, outcome.sensitivity):
        raise HTTPException(403, "your role may not read this document")
    is_blind = values.get("mode") == "blind" and own is None
    sample = item.accepted
    answers = [] if is_blind else _answers(item)
    run = desk.ledger.runs.resolve(sample.run_id)
    texts = find_texts(desk.ledger, desk.project, run, [sample.document_hash])
    text = texts.get(sample.document_hash)
    parts = None
    if text is not None:
        quoted = {} if is_blind else {title: value for title, value, _ in answers}
        parts = marked(text[:_LONGEST_TEXT], quoted)
    labels = desk.ledger.samples.labels(sample.step)
    shown = None
    if not is_blind:
        shown = own if own is not None else sample.value
    entered = values if status >= 400 or own is not None else None
    return desk.page(
        request,
        "label.html.j2",
        status,
        item=item,
        sensitivity=outcome.sensitivity,
        text=parts,
        is_cut=text is not None and len(text) > _LONGEST_TEXT,
        answers=answers,
        words=[
            (word, _title(item, word), _KEYS[word])
            for word in _TITLES
            if word in item.words
        ],
        fields=fields_of(outcome.schema, shown, entered),
        own=None if own is None else json.dumps(own),
        is_blind=is_blind,
        mode=values.get("mode") or "shown",
        step=values.get("step") or "",
        skip_address=query_address("/labels/next", {**_mode(values), "skip": item.id}),
        notice=notice,
        last=_last_item(labels, person.name),
        request_id=uuid.uuid4().hex,
        undo_id=uuid.uuid4().hex,
    )


def _title(item: Item, word: Right) -> str:
    if item.asks_both:
        return _TITLES[word]
    return "Right" if word == "accepted" else "Wrong"


def _answers(item: Item) -> list[tuple[str, Any, str]]:
    """Return the answers with their titles; models are not named, so that names decide nothing."""
    title = "The answer in use" if item.asks_both else "The answer"
    found = [(title, item.accepted.value, _shown(item.accepted.value))]
    if item.shadow is not None and item.asks_both:
        found.append(("The other answer", item.shadow.value, _shown(item.shadow.value)))
    return found


def _shown(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _answer(desk: Desk, item: Item, form: Mapping[str, Any]) -> Any:
    """Return the right answer that the person gave; None without one. Raises Misuse."""
    if form.get("own"):
        text = str(form["own"])
    elif form.get("mode") == "blind" or form.get("give"):
        text = json.dumps(answer_of(outcome_of(desk, item).schema, form))
    else:
        return None
    outcome: SampledOutcome = outcome_of(desk, item)
    return fitting_answer(outcome.schema, item.accepted.step, text, "your answer")


def _word(desk: Desk, item: Item, form: Mapping[str, Any], answer: Any) -> Right | None:
    """Return the label: the one that was chosen, or the one that follows from a blind answer."""
    chosen = form.get("word")
    if chosen in get_args(Right):
        return chosen
    if answer is None:
        raise Misuse("choose which answer is right")
    try:
        step = desk.project.load_step(item.accepted.step)
    except TierwiseError:
        return None
    return word_of_answer(step, item, answer)


def _people(desk: Desk) -> People:
    return desk.project.settings.desk.labellers


def _last_item(labels: Mapping[str, Any], person: str) -> str | None:
    """Return the item that a person labelled last; None without one."""
    own = [
        (label.number, item)
        for item, of_item in labels.items()
        for label in of_item
        if label.reviewer == person
    ]
    return max(own)[1] if own else None


def _mode(values: Mapping[str, Any]) -> dict[str, str]:
    names = ("mode", "step")
    return {name: str(values.get(name)) for name in names if values.get(name)}


def query_address(path: str, values: Mapping[str, str]) -> str:
    """Return an address with a query; empty values are left out."""
    given = {name: value for name, value in values.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def _to(path: str, values: Mapping[str, str]) -> RedirectResponse:
    return RedirectResponse(query_address(path, values), 303)
