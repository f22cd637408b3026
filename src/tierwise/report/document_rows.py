"""Every document's receipt as compact data for the page: texts are stored once and named by their number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from tierwise.ledger.rows import RunRow
from tierwise.records import Attempt, Outcome, Route, highest, rank
from tierwise.text.escape import escape_control

if TYPE_CHECKING:
    from tierwise.ledger import Ledger

MOST = 20_000  # documents on one page: more would open slowly


class _Texts:
    """Texts by number, each stored once, its control characters spelt out."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, text: str | None) -> int:
        return (
            -1 if text is None else self.numbers.setdefault(escape_control(text), len(self.numbers))
        )


def receipts(
    ledger: Ledger, runs: Sequence[RunRow], *, with_answers: bool = False
) -> dict[str, Any]:
    """The documents of some runs, newest run first, as plain data for `report.js`, which tells what stands where.

    Of a confidential or restricted outcome, what may quote the document is left out: its answer, the reasons of its
    checks and errors, and its own reason once a model was asked; `with_answers` leaves nothing out. At most `MOST`
    documents are told; `left_out` counts the rest. Raises LedgerError.
    """
    texts = _Texts()
    routes = _Texts()
    documents: list[list[Any]] = []
    left_out = 0
    for number, run in enumerate(runs):
        room = MOST - len(documents)
        left_out += max(0, run.documents - room)
        if room > 0:
            told = _documents(ledger, run, number, texts, routes, with_answers)
            documents += islice(told, room)
    return {
        "runs": [run.id for run in runs],
        "texts": list(texts.numbers),
        "routes": [json.loads(route) for route in routes.numbers],
        "documents": documents,
        "left_out": left_out,
    }


def _documents(
    ledger: Ledger, run: RunRow, number: int, texts: _Texts, routes: _Texts, with_answers: bool
) -> Iterator[list[Any]]:
    attempts: dict[tuple[str, str], list[Attempt]] = {}
    for attempt in ledger.attempts(run.id):
        attempts.setdefault((attempt.document_id, attempt.step), []).append(attempt)
    for document_id, group in groupby(ledger.outcomes(run.id), key=lambda row: row.document_id):
        outcomes = [row.outcome for row in group]
        steps = [
            _step(o, attempts.get((document_id, o.step), ()), texts, routes, with_answers)
            for o in outcomes
        ]
        yield [
            escape_control(document_id),
            number,
            texts(highest(*(o.sensitivity for o in outcomes))),
            steps,
        ]


def _step(
    outcome: Outcome, attempts: Sequence[Attempt], texts: _Texts, routes: _Texts, with_answers: bool
) -> list[Any]:
    open_ = with_answers or rank(outcome.sensitivity) < rank("confidential")
    reason = outcome.reason if open_ or not attempts else None
    route = None if outcome.route is None else json.dumps(_route(outcome.route, texts))
    features = outcome.route.features if outcome.route else {}
    answer = (
        None
        if outcome.value is None
        else json.dumps(outcome.value, ensure_ascii=False, default=str)
    )
    return [
        texts(outcome.step),
        texts(outcome.status),
        texts(outcome.model),
        texts(outcome.sensitivity),
        texts(reason) if reason is not None else -2,
        routes(route),
        features.get("tokens", -1),
        texts(features.get("language")),
        (texts(answer) if answer is not None else -1) if open_ else -2,
        [_attempt(attempt, texts, open_) for attempt in attempts],
    ]


def _route(route: Route, texts: _Texts) -> list[Any]:
    """A route without what differs from document to document, so that equal ones are stored once."""
    proofs = {choice.model: choice.proof for choice in route.choices}
    return [
        texts(route.rule),
        texts(route.reason),
        [[texts(model), texts(proofs.get(model, ""))] for model in route.models],
        [[texts(rejection.model), texts(rejection.reason)] for rejection in route.rejected],
    ]


def _attempt(attempt: Attempt, texts: _Texts, open_: bool) -> list[Any]:
    usage = attempt.usage
    return [
        texts(attempt.model),
        texts(attempt.tier),
        texts(attempt.kind),
        -1 if attempt.cost is None else float(attempt.cost),
        round(attempt.latency_s, 3),
        int(attempt.reused),
        texts(attempt.error),
        texts(attempt.error_text) if open_ else -2,
        [usage.prompt_tokens, usage.completion_tokens] if usage else [],
        _verdicts(attempt, texts, open_),
    ]


def _verdicts(attempt: Attempt, texts: _Texts, open_: bool) -> list[Any]:
    def told(reason: str) -> int:
        return texts(reason) if open_ or not reason else -2

    return [
        [texts(v.check), -1 if v.passed is None else int(v.passed), told(v.reason)]
        for v in attempt.verdicts
    ]
