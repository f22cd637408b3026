"""A plan as frozen values: what a run would do and cost. Amounts are USD, what nobody knows is counted beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from tierwise.text.amounts import rounded, usd


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
        """The row as it is shown."""
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
    """One step on one model. Documents and calls are expected numbers, since nobody knows which answers will hold.

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
    busy_s: (
        float | None
    )  # seconds of waiting for answers, all calls one after the other; None when nobody knows
    basis: str

    def cells(self) -> dict[str, Any]:
        """The row as it is shown."""
        return {
            "step": self.step,
            "tier": self.tier,
            "model": self.model,
            "documents": rounded(self.documents),
            "calls": rounded(self.calls),
            "reused": rounded(self.reused) if self.reused else "",
            "expected": amount(self.expected, self.expected_unknown),
            "at most": amount(self.most, self.most_unknown),
            "estimated from": self.basis,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Documents that will be deferred for one kind of reason; `reason` is that of the first."""

    step: str
    reason: str
    documents: int
    first: Sequence[str]  # some ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What one call a document to the strongest model would cost, nothing reused."""

    what: str
    models: Sequence[str]
    cost: Decimal
    unknown: int

    @property
    def sentence(self) -> str:
        """The reference in one line."""
        models = ", ".join(self.models)
        return f"Always {self.what} ({models}), for the same documents: {amount(self.cost, self.unknown)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What some documents cost for real, and what that says of the whole batch. Amounts are USD."""

    run_id: str
    documents: int
    unknown: int  # documents of unknown cost, which the estimate leaves out
    paid: Decimal  # by this sample
    mean: (
        Decimal | None
    )  # a document, as if nothing had been paid before; None when nothing is known
    p50: Decimal | None  # of the whole batch, likewise
    p95: Decimal | None

    @property
    def sentence(self) -> str:
        """The sample in one line."""
        text = f"Sampled {self.documents} documents (run {self.run_id}) for {usd(self.paid)}"
        if self.mean is None or self.p50 is None or self.p95 is None:
            return f"{text}; their cost is unknown"
        text += f", {usd(self.mean)} a document: the whole batch costs {usd(self.p50)} (P50), {usd(self.p95)} (P95)"
        return f"{text}; {self.unknown} of unknown cost are left out" if self.unknown else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do and cost."""

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
    assumed: Mapping[str, int] = field(
        default_factory=dict
    )  # what was taken for granted -> documents
    expected_deferred: float = (
        0.0  # documents that no model is expected to answer well, in any step
    )
    missing: Sequence[str] = ()  # proof that would make a cheaper choice possible
    references: Sequence[Reference] = ()
    shadow: float = 0.0  # shadows may spend this share of what the run spends, on top of it
    seconds_least: float | None = (
        None  # when the busiest model decides; None when no latency is known
    )
    seconds_most: float | None = None  # when one model waits for the other
    sample: Sample | None = None

    @property
    def untimed(self) -> Sequence[str]:
        """The models, by step, that have never answered here, so that nobody knows how long they take."""
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
        """USD that the run can cost at most, without calls of unknown price; never more than its budget."""
        total = sum((row.most for row in self.rows), Decimal(0)) * Decimal(str(1 + self.shadow))
        return total if self.budget_usd is None else min(total, self.budget_usd)

    @property
    def unknown(self) -> float:
        """Expected calls of unknown price."""
        return sum(row.expected_unknown for row in self.rows)

    def headline(self) -> str:
        """The plan in one line."""
        parts = [
            f"{self.documents} documents",
            f"about {rounded(sum(row.calls for row in self.rows))} calls",
        ]
        if reused := sum(row.reused for row in self.rows):
            parts.append(f"{rounded(reused)} reused")
        most = amount(self.most, sum(row.most_unknown for row in self.rows))
        cost = f"expected cost {amount(self.expected, self.unknown)}, at most {most}"
        within = (
            " (the budget)" if self.budget_usd is not None and self.most == self.budget_usd else ""
        )
        return f"{', '.join(parts)}; {cost}{within}"

    def data(self) -> dict[str, Any]:
        """Everything as plain data, for scripts and for the run that follows."""
        totals = {"expected": self.expected, "expected_unknown": self.unknown, "most": self.most}
        return {**asdict(self), **totals}


def amount(known: Decimal, unknown: float) -> str:
    """An amount, and how many calls are not in it because nobody knows what they cost."""
    if unknown and not known:
        return f"unknown ({rounded(unknown)} calls)"
    return f"{usd(known)} + {rounded(unknown)} of unknown cost" if unknown else usd(known)
