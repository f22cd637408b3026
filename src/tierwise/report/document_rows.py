"""Every document's receipt as compact data for the page, with each text stored once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from tierwise.ledger.rows import OutcomeRow, RunRow
from tierwise.records import Attempt, Outcome, Route, highest, rank
from tierwise.text.escape import escape_control

if TYPE_CHECKING:
    from tierwise.ledger import Ledger

MAX_DOCUMENTS = 20_000  # on one page: more would open slowly
_MOST_PLACES = 50  # of one outcome
# in the place of a text's number
_NONE = -1
_WITHHELD = -2


class _TextTable:
    """Texts by number, each stored once, with escaped control characters."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str | None) -> int:
        """Return the number of a text, which is added when it is new; -1 for none."""
        if text is None:
            return _NONE
        # the number of texts so far is the index of a new one
        return self._numbers.setdefault(escape_control(text), len(self._numbers))

    def texts(self) -> list[str]:
        """Return all texts in the order of their numbers."""
        return list(self._numbers)


def document_rows(
    ledger: Ledger, runs: Sequence[RunRow], *, with_answers: bool = False
) -> dict[str, Any]:
    """Return the documents of some runs, newest run first, as plain data. Raises LedgerError.

    `report.js` describes the format. Of a confidential or restricted outcome, everything that may
    quote the document is withheld: its answer, the reasons of its checks and errors, and its own
    reason once a model was asked; `with_answers` withholds nothing. At most `MAX_DOCUMENTS`
    documents are returned; `left_out` counts the rest.
    """
    writer = _RowWriter(with_answers)
    documents: list[list[Any]] = []
    left_out = 0
    for run_number, run in enumerate(runs):
        room = MAX_DOCUMENTS - len(documents)
        # counted from the run's own total, since the rows left out are not read
        left_out += max(0, run.documents - room)
        if room > 0:
            documents += islice(writer.run_rows(ledger, run, run_number), room)
    return {
        "runs": [run.id for run in runs],
        "texts": writer.texts.texts(),
        "routes": [json.loads(route) for route in writer.routes.texts()],
        "documents": documents,
        "left_out": left_out,
    }


def _places_line(outcome: Outcome) -> str | None:
    """Return the fields with their places, such as `total: page 2, 120–127`; None without any."""
    shown = []
    for place in outcome.places[:_MOST_PLACES]:
        page = "" if place.page is None else f"page {place.page}, "
        shown.append(f"{place.path}: {page}{place.start}–{place.end}")
    more = len(outcome.places) - len(shown)
    if more:
        shown.append(f"{more} more")
    return "; ".join(shown) or None


class _RowWriter:
    """Turns outcomes and attempts into rows, and collects their texts and routes."""

    def __init__(self, with_answers: bool) -> None:
        self.texts = _TextTable()
        self.routes = _TextTable()  # as JSON
        self._with_answers = with_answers

    def run_rows(
        self, ledger: Ledger, run: RunRow, run_number: int
    ) -> Iterator[list[Any]]:
        """Yield a row for each document of a run: [id, run, sensitivity, steps]."""
        # all attempts in one query, instead of one query for each document
        attempts: dict[tuple[str, str], list[Attempt]] = {}
        for attempt in ledger.runs.attempts(run.id):
            attempts.setdefault((attempt.document_id, attempt.step), []).append(attempt)
        # groupby needs a document's rows side by side; the ledger sorts them so
        by_document = groupby(
            ledger.runs.outcomes(run.id), key=lambda row: row.document_id
        )
        for document_id, group in by_document:
            yield self._document_row(document_id, run_number, list(group), attempts)

    def _document_row(
        self,
        document_id: str,
        run_number: int,
        rows: Sequence[OutcomeRow],
        attempts: Mapping[tuple[str, str], Sequence[Attempt]],
    ) -> list[Any]:
        steps = []
        for row in rows:
            step_attempts = attempts.get((document_id, row.outcome.step), ())
            steps.append(self._step_row(row.outcome, step_attempts))
        # a step may have raised it, and the page hides by the highest
        sensitivity = highest(*(row.outcome.sensitivity for row in rows))
        number = self.texts.number(sensitivity)
        return [escape_control(document_id), run_number, number, steps]

    def _step_row(self, outcome: Outcome, attempts: Sequence[Attempt]) -> list[Any]:
        """Return an outcome as [step, status, model, sensitivity, reason, route, tokens, …]."""
        number = self.texts.number
        shown = self._with_answers or rank(outcome.sensitivity) < rank("confidential")
        row: list[Any] = [
            number(outcome.step),
            number(outcome.status),
            number(outcome.model),
            number(outcome.sensitivity),
        ]
        # without an attempt the reason is the router's own, which quotes nothing
        reason_shown = shown or not attempts
        row.append(self._quoting(outcome.reason, reason_shown))
        route = outcome.route
        features: Mapping[str, Any] = {}
        if route is None:
            row.append(_NONE)
        else:
            features = route.features
            row.append(self.routes.number(json.dumps(self._route_row(route))))
        # documents that no router has seen have no features
        row.append(features.get("tokens", -1))
        row.append(number(features.get("language")))
        row.append(self._answer_number(outcome, shown))
        row.append([self._attempt_row(attempt, shown) for attempt in attempts])
        # it may name an attached file
        incomplete = features.get("tags", {}).get("incomplete")
        row.append(self._quoting(incomplete, shown or incomplete is None))
        # names of fields and models quote nothing
        sources = "; ".join(outcome.fields_by_source)
        open_fields = ", ".join(outcome.open_fields)
        row.append([number(sources or None), number(open_fields or None)])
        # A field's name may be a key that the model took from the document.
        places = _places_line(outcome)
        row.append(self._quoting(places, shown or places is None))
        return row

    def _quoting(self, text: str | None, shown: bool) -> int:
        """Return the number of a text that may quote the document; -2 where that is withheld."""
        return self.texts.number(text) if shown else _WITHHELD

    def _answer_number(self, outcome: Outcome, shown: bool) -> int:
        if not shown:
            return _WITHHELD
        if outcome.value is None:
            return _NONE
        return self.texts.number(
            json.dumps(outcome.value, ensure_ascii=False, default=str)
        )

    def _route_row(self, route: Route) -> list[Any]:
        """Return a route without what differs by document, so that equal ones are stored once."""
        number = self.texts.number
        proofs = {choice.model: choice.proof for choice in route.choices}
        models = [
            [number(model), number(proofs.get(model, ""))] for model in route.models
        ]
        rejected = [
            [number(each.model), number(each.reason)] for each in route.rejected
        ]
        return [number(route.rule), number(route.reason), models, rejected]

    def _attempt_row(self, attempt: Attempt, shown: bool) -> list[Any]:
        """Return an attempt as [model, tier, kind, USD, seconds, reused, error, …]."""
        number = self.texts.number
        usage = attempt.usage
        note = self._quoting(attempt.error_text, shown)
        # token counts quote nothing, so this note is shown whatever the sensitivity
        if usage and usage.unclear and not attempt.error:
            note = number(
                f"usage unclear: {usage.unclear}; counted the largest reading"
            )
        # report.js writes "unknown" for a negative cost
        cost: float = -1
        if attempt.cost is not None:
            cost = float(attempt.cost)
        tokens = [usage.prompt_tokens, usage.completion_tokens] if usage else []
        return [
            number(attempt.model),
            number(attempt.tier),
            number(attempt.kind),
            cost,
            round(attempt.latency_s, 3),
            int(attempt.reused),
            number(attempt.error),
            note,
            tokens,
            self._verdict_rows(attempt, shown),
        ]

    def _verdict_rows(self, attempt: Attempt, shown: bool) -> list[list[int]]:
        rows = []
        for verdict in attempt.verdicts:
            passed = -1 if verdict.passed is None else int(verdict.passed)
            # an empty reason quotes nothing, and "withheld" in its place would mislead
            reason = self._quoting(verdict.reason, shown or not verdict.reason)
            rows.append([self.texts.number(verdict.check), passed, reason])
        return rows
