"""A plan as frozen values.

Amounts are USD. Calls of unknown price are in no amount; they are counted separately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from tierwise.records import Transport
from tierwise.text.amounts import duration, rounded, usd


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRow:
    """The documents of one step that take one route and start with one model."""

    step: str
    route: str
    tier: str
    model: str
    documents: int
    prompt_tokens: int
    reason: str

    def cells(self) -> dict[str, Any]:
        """Return the row as it is displayed."""
        return {
            "step": self.step,
            "route": self.route,
            "first model": self.model,
            "documents": self.documents,
            "prompt tokens": f"{self.prompt_tokens:,}",
            "why": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """One step on one model.

    Documents and calls are expected numbers, since it is not known which answers will pass.
    `expected_unknown` and `most_unknown` are calls whose price is unknown; they are in no amount.
    """

    step: str
    tier: str
    model: str
    documents: float
    calls: float  # reused ones included
    reused: float
    prompt_tokens: float  # like the following, of calls that are made
    completion_tokens: float
    expected: Decimal
    expected_unknown: float
    most: Decimal
    most_unknown: float
    # seconds until all answers are there, one call after the other; None when unknown
    busy_s: float | None
    basis: str
    # how its calls are expected to go, which `expected` is the cost of
    transport: Transport = "online"
    online: Decimal = Decimal(0)  # USD when all calls go online
    # USD when all calls go in batches that may; None where none may
    in_batches: Decimal | None = None
    # seconds that a batch is expected to take; None without batches
    batch_s: float | None = None
    batch_basis: str = ""

    def cells(self) -> dict[str, Any]:
        """Return the row as it is displayed."""
        reused = rounded(self.reused) if self.reused else ""
        return {
            "step": self.step,
            "tier": self.tier,
            "model": self.model,
            "documents": rounded(self.documents),
            "calls": rounded(self.calls),
            "reused": reused,
            "expected": amount(self.expected, self.expected_unknown),
            "at most": amount(self.most, self.most_unknown),
            "estimated from": self.basis,
        }

    def transport_cells(self) -> dict[str, Any]:
        """Return the bills and durations of both transports as they are displayed."""
        in_batches = ""
        batch_time = ""
        if self.in_batches is not None:
            in_batches = amount(self.in_batches, self.expected_unknown)
        if self.batch_s is not None:
            batch_time = f"{duration(self.batch_s)}: {self.batch_basis}"
        return {
            "step": self.step,
            "model": self.model,
            "goes": self.transport,
            "online": amount(self.online, self.expected_unknown),
            "in batches": in_batches or "no batches",
            "a batch takes": batch_time,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Documents that will be deferred for one kind of reason. `reason` is that of the first."""

    step: str
    reason: str
    documents: int
    first: Sequence[str]  # some ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The cost of one call a document to the strongest models, nothing reused."""

    what: str
    models: Sequence[str]
    cost: Decimal
    unknown: int

    @property
    def sentence(self) -> str:
        """The reference in one line."""
        models = ", ".join(self.models)
        cost = amount(self.cost, self.unknown)
        return f"Always {self.what} ({models}), for the same documents: {cost}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The cost of some documents that were run, and of the whole batch by them, in USD."""

    run_id: str
    documents: int
    unknown: int  # documents of unknown cost, which the estimate leaves out
    paid: Decimal  # by this sample
    # a document, as if nothing had been paid before; None when nothing is known
    mean: Decimal | None
    p50: Decimal | None  # of the whole batch, likewise
    p95: Decimal | None
    paid_unknown: int = 0  # calls of the sample that may have been billed too

    @property
    def sentence(self) -> str:
        """The sample in one line."""
        text = f"Sampled {self.documents} documents (run {self.run_id}) for {usd(self.paid, self.paid_unknown)}"
        if self.mean is None or self.p50 is None or self.p95 is None:
            return f"{text}; their cost is unknown"
        whole = f"{usd(self.p50)} (P50), {usd(self.p95)} (P95)"
        text += f", {usd(self.mean)} a document: the whole batch costs {whole}"
        if self.unknown:
            text += f"; {self.unknown} of unknown cost are left out"
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The expected routes, calls and cost of a run."""

    flow: str
    parameters: Mapping[str, str]
    policy_hash: str
    made_at: float  # seconds since the epoch, UTC
    documents: int
    budget_usd: Decimal | None
    routes: Sequence[RouteRow]
    rows: Sequence[CostRow]
    waiting: Sequence[Waiting]
    skipped: Mapping[str, int] = field(default_factory=dict)  # step -> documents
    assumed: Mapping[str, int] = field(default_factory=dict)  # assumption -> documents
    expected_deferred: float = 0.0  # documents that no model is expected to answer well
    # certificates that would make a cheaper choice possible
    missing: Sequence[str] = ()
    references: Sequence[Reference] = ()
    # shadows may spend this share of what the run spends, on top of it
    shadow: float = 0.0
    seconds_least: float | None = None  # models work side by side; None when unknown
    seconds_most: float | None = None  # models work one after the other
    sample: Sample | None = None

    @property
    def has_batches(self) -> bool:
        """True if any call may go in a provider batch."""
        return any(row.in_batches is not None for row in self.rows)

    @property
    def online(self) -> Decimal:
        """USD that the run should cost with all calls online."""
        return sum((row.online for row in self.rows), Decimal(0))

    @property
    def in_batches(self) -> Decimal:
        """USD that the run should cost with all calls in batches that may go in one."""
        bills = [
            row.online if row.in_batches is None else row.in_batches
            for row in self.rows
        ]
        return sum(bills, Decimal(0))

    @property
    def batch_seconds(self) -> float:
        """Seconds that the run takes in batches: one after the other for each step and model."""
        return sum(row.batch_s or 0.0 for row in self.rows if row.calls > row.reused)

    @property
    def untimed(self) -> Sequence[str]:
        """The models, by step, that have no latency on record."""
        return [
            f"{row.step} on {row.model}"
            for row in self.rows
            if row.busy_s is None and row.calls >= 0.05
        ]

    @property
    def expected(self) -> Decimal:
        """USD that the run should cost, without calls of unknown price."""
        return sum((row.expected for row in self.rows), Decimal(0))

    @property
    def most(self) -> Decimal:
        """USD that the run can cost at most, without calls of unknown price.

        Never more than its budget.
        """
        own = sum((row.most for row in self.rows), Decimal(0))
        with_shadows = own * Decimal(str(1 + self.shadow))
        if self.budget_usd is None:
            return with_shadows
        return min(with_shadows, self.budget_usd)

    @property
    def unknown(self) -> float:
        """Expected calls of unknown price."""
        return sum(row.expected_unknown for row in self.rows)

    def headline(self) -> str:
        """Return the plan in one line."""
        calls = sum(row.calls for row in self.rows)
        reused = sum(row.reused for row in self.rows)
        most_unknown = sum(row.most_unknown for row in self.rows)
        line = f"{self.documents} documents, about {rounded(calls)} calls"
        if reused:
            line += f", {rounded(reused)} reused"
        line += f"; expected cost {amount(self.expected, self.unknown)}"
        line += f", at most {amount(self.most, most_unknown)}"
        if self.budget_usd is not None and self.most == self.budget_usd:
            line += " (the budget)"
        return line

    def data(self) -> dict[str, Any]:
        """Return everything as plain data, for scripts and for the run that follows."""
        totals = {
            "expected": self.expected,
            "expected_unknown": self.unknown,
            "most": self.most,
            "online": self.online,
            "in_batches": self.in_batches if self.has_batches else None,
            "batch_seconds": self.batch_seconds if self.has_batches else None,
        }
        return {**asdict(self), **totals}


def amount(known: Decimal, unknown: float) -> str:
    """Return an amount, with the number of calls of unknown cost that are missing from it."""
    if not unknown:
        return usd(known)
    if not known:
        return f"unknown ({rounded(unknown)} calls)"
    return f"{usd(known)} + {rounded(unknown)} of unknown cost"
