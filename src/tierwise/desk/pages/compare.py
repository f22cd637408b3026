"""Two models or two prompts side by side, in an order of chance, without their names."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from tierwise.desk.access import Person, Reviewer, Viewer
from tierwise.desk.comparing import (
    Pair,
    Result,
    changed_prompts,
    pair_of,
    result_of,
    shown,
    variants_of,
    word_of,
)
from tierwise.desk.desk import Desk, TheDesk
from tierwise.desk.forms import answer_of, fields_of
from tierwise.desk.marks import marked
from tierwise.desk.notices import Notice
from tierwise.desk.pages.labels import query_address
from tierwise.desk.pages.run import find_run
from tierwise.errors import DecidedMeanwhile, Misuse, TierwiseError
from tierwise.ledger.people.comparisons import (
    Comparison,
    Judged,
    Judgement,
    Variant,
    is_swapped,
)
from tierwise.review.compared_rows import (
    ComparedRow,
    ComparedRows,
    write_compared_rows,
)
from tierwise.review.queue import find_texts, fitting_answer
from tierwise.text.amounts import plural

router = APIRouter()
_LONGEST_TEXT = 200_000
_PAIRS_S = 30.0  # the answers to compare do not change, but later runs add documents
Verdicts = Mapping[str, Judged]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A comparison as the page lists it. `visible` are those of `waiting` that one may read."""

    comparison: Comparison
    documents: int
    differing: int
    waiting: int
    visible: int
    result: Result

    @property
    def state(self) -> str:
        """How far it is, in a sentence."""
        if not self.documents:
            return "No document has an answer of both."
        if not self.differing:
            alike = plural(self.documents, "document")
            return f"Both gave equal answers for {alike}: nothing needs a verdict."
        differing = plural(self.differing, "document")
        have = "has" if self.differing == 1 else "have"
        all_of = f"{differing} of {self.documents} in common {have} different answers"
        if not self.waiting:
            return f"{all_of}; each has a verdict."
        wait = "waits" if self.waiting == 1 else "wait"
        waiting = f"{all_of}; {self.waiting} {wait} for a verdict"
        unseen = self.waiting - self.visible
        if unseen:
            return f"{waiting}, {unseen} of them more sensitive than you may read."
        return f"{waiting}."


@router.get("/compare")
def compare_page(desk: TheDesk, request: Request, person: Viewer) -> Response:
    """Return the comparisons, and what can be compared."""
    return _overview(desk, request, person, None)


@router.post("/compare/new")
def new_comparison(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Begin a comparison of two variants of a step."""
    form = request.state.form
    step = str(form.get("step") or "")
    known = {variant.name: variant for variant, _ in variants_of(desk).get(step, ())}
    first = _chosen(known, form.get("first"))
    second = _chosen(known, form.get("second"))
    comparison = desk.ledger.comparisons.create(step, first, second, person.name)
    return _to("/compare/next", {"id": comparison.id})


@router.get("/compare/next")
def next_pair(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Go to the next document that needs a verdict."""
    query = request.query_params
    comparison = desk.ledger.comparisons.get(query.get("id", ""))
    verdicts = desk.ledger.comparisons.verdicts(comparison.id)
    for pair in _pairs(desk, comparison):
        answered = pair.answered
        is_open = not pair.is_same and answered.document_hash not in verdicts
        if is_open and desk.access.may_see(person, answered.sensitivity):
            more = {"id": comparison.id, "text": answered.document_hash}
            return _to("/compare/pair", more)
    return _to("/compare", {"done": comparison.id})


@router.get("/compare/pair")
def pair_page(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Return two answers to one document."""
    query = request.query_params
    comparison = desk.ledger.comparisons.get(query.get("id", ""))
    pair = _pair(desk, comparison, query.get("text", ""))
    return _pair_page(desk, request, person, comparison, pair, None)


@router.post("/compare/verdict")
def verdict(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Record a verdict, and go to the next document."""
    form = request.state.form
    comparison = desk.ledger.comparisons.get(str(form.get("id") or ""))
    pair = _pair(desk, comparison, str(form.get("text") or ""))
    if not desk.access.may_see(person, pair.answered.sensitivity):
        raise HTTPException(403, "your role may not read this document")
    swapped = is_swapped(comparison.id, pair.answered.document_hash)
    try:
        word = word_of(str(form.get("word") or ""), is_swapped=swapped)
        answer = None
        if word == "neither" and form.get("give"):
            schema = _schema(desk, pair.answered.question)
            given = json.dumps(answer_of(schema, form))
            answer = fitting_answer(schema, comparison.step, given, "your answer")
        judgement = Judgement(
            word=word,
            by=person.name,
            request=str(form.get("request") or uuid.uuid4().hex)[:80],
            is_swapped=swapped,
            answer=answer,
        )
        desk.ledger.comparisons.judge(comparison, pair.answered, judgement)
    except DecidedMeanwhile as error:
        notice = Notice(text=str(error), is_fault=True)
        return _pair_page(desk, request, person, comparison, pair, notice, 409)
    except Misuse as error:
        notice = Notice(text=f"Nothing was recorded: {error}", is_fault=True)
        return _pair_page(desk, request, person, comparison, pair, notice, 422, form)
    return _to("/compare/next", {"id": comparison.id})


@router.post("/compare/undo")
def undo(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Take the person's own last verdict back, and show its document."""
    form = request.state.form
    comparison = desk.ledger.comparisons.get(str(form.get("id") or ""))
    own_request = str(form.get("request") or uuid.uuid4().hex)
    text = desk.ledger.comparisons.undo(comparison, person.name, own_request)
    if text is None:
        return _to("/compare/next", {"id": comparison.id})
    return _to("/compare/pair", {"id": comparison.id, "text": text})


@router.post("/compare/golden")
def golden_set(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Write the judged documents as a golden set, for the paired certificate."""
    form = request.state.form
    comparison = desk.ledger.comparisons.get(str(form.get("id") or ""))
    try:
        rows = _golden_rows(desk, comparison)
        written = write_compared_rows(desk.project, comparison.step, rows)
    except TierwiseError as error:
        notice = Notice(text=str(error), is_fault=True)
        return _overview(desk, request, person, notice, 422)
    notice = Notice(
        text=_written_text(comparison.step, written),
        lines=[f"{name} was left out: {why}" for name, why in written.left_out[:20]],
    )
    return _overview(desk, request, person, notice)


def _written_text(step: str, written: ComparedRows) -> str:
    path = f"golden/{written.path.name}"
    if not written.rows:
        return f"{path} was not written: every document was left out."
    return f"{plural(written.rows, 'row')} in {path}. Next: tierwise certify {step} --golden {path}"


def _overview(
    desk: Desk,
    request: Request,
    person: Person,
    notice: Notice | None,
    status: int = 200,
) -> Response:
    done = request.query_params.get("done", "")
    comparisons = []
    for comparison in desk.ledger.comparisons.all():
        pairs = _pairs(desk, comparison)
        verdicts = desk.ledger.comparisons.verdicts(comparison.id)
        waiting = [
            pair
            for pair in pairs
            if not pair.is_same and pair.answered.document_hash not in verdicts
        ]
        visible = [
            pair
            for pair in waiting
            if desk.access.may_see(person, pair.answered.sensitivity)
        ]
        result = result_of(pairs, verdicts)
        compared = Compared(
            comparison=comparison,
            documents=len(pairs),
            differing=sum(not pair.is_same for pair in pairs),
            waiting=len(waiting),
            visible=len(visible),
            result=result,
        )
        comparisons.append(compared)
        if notice is None and comparison.id == done:
            notice = Notice(text=compared.state)
    variants = variants_of(desk)
    changed = {
        step: changed_prompts(variant for variant, _ in of_step)
        for step, of_step in variants.items()
    }
    return desk.page(
        request,
        "compare.html.j2",
        status,
        comparisons=comparisons,
        variants={step: each for step, each in variants.items() if len(each) > 1},
        changed=changed,
        notice=notice,
    )


def _pair_page(
    desk: Desk,
    request: Request,
    person: Person,
    comparison: Comparison,
    pair: Pair,
    notice: Notice | None,
    status: int = 200,
    entered: Mapping[str, str] | None = None,
) -> Response:
    answered = pair.answered
    if not desk.access.may_see(person, answered.sensitivity):
        raise HTTPException(403, "your role may not read this document")
    text = _texts(desk, [pair]).get(answered.document_hash)
    sides = [
        (pair.first, shown(pair.first, answered.first)),
        (pair.second, shown(pair.second, answered.second)),
    ]
    if is_swapped(comparison.id, answered.document_hash):
        sides.reverse()
    (left, left_text), (right, right_text) = sides
    parts = None
    if text is not None:
        parts = marked(text[:_LONGEST_TEXT], {"left": left, "right": right})
    verdicts = desk.ledger.comparisons.verdicts(comparison.id)
    return desk.page(
        request,
        "pair.html.j2",
        status,
        comparison=comparison,
        answered=answered,
        text=parts,
        is_cut=text is not None and len(text) > _LONGEST_TEXT,
        left=left_text,
        right=right_text,
        fields=fields_of(_schema(desk, answered.question), None, entered),
        notice=notice,
        has_own=any(each.reviewer == person.name for each in verdicts.values()),
        request_id=uuid.uuid4().hex,
        undo_id=uuid.uuid4().hex,
    )


def _pairs(desk: Desk, comparison: Comparison) -> list[Pair]:
    """Return the documents of a comparison in the order of chance; read once for many verdicts."""
    key = ("pairs", comparison.id)
    return desk.kept.get(key, lambda: _read_pairs(desk, comparison), _PAIRS_S)


def _read_pairs(desk: Desk, comparison: Comparison) -> list[Pair]:
    schemas: dict[str | None, Mapping[str, Any]] = {}
    pairs = []
    for answered in desk.ledger.comparisons.answered(comparison):
        question = answered.question
        if question not in schemas:
            schemas[question] = _schema(desk, question)
        # Answers whose text was deleted since cannot be compared, whatever they were.
        if answered.first is None or answered.second is None:
            continue
        pairs.append(pair_of(answered, schemas[question], comparison.step))
    return pairs


def _pair(desk: Desk, comparison: Comparison, text: str) -> Pair:
    for pair in _pairs(desk, comparison):
        if pair.answered.document_hash == text:
            return pair
    raise HTTPException(404, "this comparison has no such document")


def _schema(desk: Desk, question: str | None) -> Mapping[str, Any]:
    return desk.ledger.reviews.schema(question or "") or {}


def _texts(desk: Desk, pairs: Sequence[Pair]) -> dict[str, str]:
    """Return the texts of documents, by hash."""
    texts: dict[str, str] = {}
    for run_id in dict.fromkeys(pair.answered.run_id for pair in pairs):
        run = find_run(desk, run_id)
        hashes = [
            pair.answered.document_hash
            for pair in pairs
            if pair.answered.run_id == run_id
        ]
        texts |= find_texts(desk.ledger, desk.project, run, hashes)
    return texts


def _golden_rows(desk: Desk, comparison: Comparison) -> list[ComparedRow]:
    """Return the judged documents in the order of chance, up to the first without a verdict.

    A document with equal answers has no verdict, so nobody has said what is right there: it is no
    row of a golden set, and the rows say nothing about how often the two agree.
    """
    verdicts = desk.ledger.comparisons.verdicts(comparison.id)
    judged: list[tuple[Pair, Judged]] = []
    for pair in _pairs(desk, comparison):
        if pair.is_same:
            continue
        found = verdicts.get(pair.answered.document_hash)
        if found is None:
            break
        judged.append((pair, found))
    if not judged:
        raise Misuse(
            "there is nothing to write: the first document of this comparison with different "
            "answers has no verdict, or none has different answers"
        )
    texts = _texts(desk, [pair for pair, _ in judged])
    rows = []
    for pair, found in judged:
        right = {"first": pair.first, "both": pair.first, "second": pair.second}
        rows.append(
            ComparedRow(
                document_id=pair.answered.document_id,
                text=texts.get(pair.answered.document_hash),
                sensitivity=pair.answered.sensitivity,
                expected=right.get(found.word, found.answer),
                reviewer=found.reviewer,
                judged_at=found.judged_at,
            )
        )
    return rows


def _chosen(known: Mapping[str, Variant], name: Any) -> Variant:
    variant = known.get(str(name or ""))
    if variant is None:
        raise Misuse("choose two models or prompts of one step")
    return variant


def _to(path: str, values: Mapping[str, str]) -> RedirectResponse:
    return RedirectResponse(query_address(path, values), 303)
