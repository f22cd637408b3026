"""The figures of a report: what is not in the ledger as it stands, worked out from it and from the project's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from tierwise.ledger.rows import RunRow
from tierwise.ledger.views.summary import ChainRow, CheckRow, EstimateRow, NeededRow
from tierwise.policy.catalog import Catalog, Model, PriceBand
from tierwise.policy.certificates import Certificate, lower_bound

_BOTH_SIDES = 0.05  # one-sided at half of it each: a 95 % interval


@dataclass(frozen=True, slots=True)
class Proof:
    """A certificate, and why it no longer counts; None while it does."""

    certificate: Certificate
    void: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the project's files say today; nothing where they could not be read."""

    catalog: Catalog | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    proofs: Sequence[Proof] = ()
    labels_wanted: int = 0  # answers that wait for a person's label

    @property
    def best(self) -> Model | None:
        """The strongest model with a known price; of equals the dearest."""
        models = self.catalog.models.values() if self.catalog else ()
        priced = [
            (model, model.price)
            for model in models
            if model.price != "unknown" and not model.learned
        ]
        found = max(
            priced, key=lambda pair: (pair[0].strength, pair[1].output, pair[0].name), default=None
        )
        return found[0] if found else None


def interval(passed: int, n: int) -> tuple[float, float] | None:
    """The exact 95 % interval of a pass rate (Clopper and Pearson); None without any."""
    if not n:
        return None
    low = lower_bound(n - passed, n, alpha=_BOTH_SIDES / 2)
    return low, 1 - lower_bound(passed, n, alpha=_BOTH_SIDES / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRate:
    """How often answers passed a check, with the exact 95 % interval; None where nothing was scored."""

    step: str
    model: str
    check: str
    passed: int
    scored: int
    unscored: int
    rate: float | None
    interval: tuple[float, float] | None


def check_rate(row: CheckRow) -> CheckRate:
    """A check's counts as a rate."""
    scored = row.passed + row.failed
    return CheckRate(
        step=row.step,
        model=row.model,
        check=row.check,
        passed=row.passed,
        scored=scored,
        unscored=row.unscored,
        rate=row.passed / scored if scored else None,
        interval=interval(row.passed, scored),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What a step cost, and what the same documents would have cost at the best model. USD; None: unknown.

    Documents that a guard keeps from the best model cost the same on both sides (`barred` calls). Of calls without
    token counts, such as a trained classifier's, those of `estimated` documents are in the best model's cost by the
    tokens of the prompt and of the answer; the `uncounted` others are in the cost alone. `quality` is the certified
    pass rate of what was used less that of the best model, as shares; None where certificates don't give both.
    """

    step: str
    cost: Decimal | None
    best_cost: Decimal | None
    calls: int
    barred: int
    uncounted: int
    estimated: int
    quality: float | None
    evidence: str

    @property
    def saved(self) -> Decimal | None:
        """USD; negative where it cost more."""
        return None if self.cost is None or self.best_cost is None else self.best_cost - self.cost

    @property
    def share(self) -> float | None:
        """The saving as a share of the best model's cost."""
        return (
            None if self.saved is None or not self.best_cost else float(self.saved / self.best_cost)
        )


def savings(
    rows: Iterable[NeededRow],
    estimates: Sequence[EstimateRow],
    chains: Iterable[ChainRow],
    best: Model,
    proofs: Sequence[Proof],
) -> list[Saving]:
    """Each step against always the best model, by step."""
    steps: dict[str, list[NeededRow]] = {}
    for row in rows:
        steps.setdefault(row.step, []).append(row)
    used = list(chains)
    return [
        _saving(
            step,
            mine,
            [row for row in estimates if row.step == step],
            [c for c in used if c.step == step],
            best,
            proofs,
        )
        for step, mine in steps.items()
    ]


def total(rows: Sequence[Saving]) -> Saving:
    """All steps together; a difference in quality cannot be added up."""
    return Saving(
        step="total",
        cost=_sum(row.cost for row in rows),
        best_cost=_sum(row.best_cost for row in rows),
        calls=sum(row.calls for row in rows),
        barred=sum(row.barred for row in rows),
        uncounted=sum(row.uncounted for row in rows),
        estimated=sum(row.estimated for row in rows),
        quality=None,
        evidence="",
    )


def _saving(
    step: str,
    rows: Sequence[NeededRow],
    estimates: Sequence[EstimateRow],
    chains: Sequence[ChainRow],
    best: Model,
    proofs: Sequence[Proof],
) -> Saving:
    quality, evidence = _quality(step, chains, best.name, proofs)
    barred = _sum(_spent(row) for row in rows if row.barred)
    there = sum((_price(best, row) for row in rows if not row.barred), Decimal(0))
    there += sum((_price(best, row) for row in estimates), Decimal(0))
    return Saving(
        step=step,
        cost=_sum(_spent(row) for row in rows),
        best_cost=None if barred is None else barred + there,
        calls=sum(row.counted for row in rows),
        barred=sum(row.counted for row in rows if row.barred),
        uncounted=sum(row.uncounted for row in rows if not row.barred)
        - sum(row.calls for row in estimates),
        estimated=sum(row.documents for row in estimates),
        quality=quality,
        evidence=evidence,
    )


def _price(best: Model, row: NeededRow | EstimateRow) -> Decimal:
    """USD of the row's calls at a model whose price is known; the calls together are no long prompt."""
    if best.price == "unknown":
        raise ValueError(f"{best.name} has no price")
    band = best.price.above if row.long and best.price.above else best.price
    usage = row.usage
    # the band's own formula: all calls' tokens together say nothing of one prompt's length
    return PriceBand.cost_of_tokens(
        band, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens
    )


def _spent(row: NeededRow) -> Decimal | None:
    return None if row.cost_unknown else row.cost_known


def _sum(costs: Iterable[Decimal | None]) -> Decimal | None:
    amount = Decimal(0)
    for cost in costs:
        if cost is None:
            return None
        amount += cost
    return amount


def _quality(
    step: str, chains: Sequence[ChainRow], best: str, proofs: Sequence[Proof]
) -> tuple[float | None, str]:
    """The certified difference, and what it rests on or lacks. An answer of the best model is as good as its own."""
    valid = {
        p.certificate.models: p.certificate
        for p in proofs
        if p.certificate.step == step and p.void is None
    }
    others = [row for row in chains if row.model != best]
    if not chains:
        return None, "no answer was accepted"
    if not others:
        return 0.0, f"all answers are {best}'s"
    if (top := valid.get((best,))) is None:
        return None, f"no certificate in force for {best}"
    difference = 0.0
    told = {f"{best} {top.pass_rate:.1%} of {top.n}": None}
    for row in others:
        chain = (
            row.models[: row.models.index(row.model) + 1]
            if row.model in row.models
            else (row.model,)
        )
        proof = valid.get(row.models) or valid.get(chain)
        if proof is None:
            return None, f"no certificate in force for {' > '.join(chain)}"
        if proof.golden_hash != top.golden_hash:
            return (
                None,
                f"{' > '.join(proof.models)} and {best} were measured on different examples",
            )
        difference += row.documents * (proof.pass_rate - top.pass_rate)
        told[f"{' > '.join(proof.models)} {proof.pass_rate:.1%} of {proof.n}"] = None
    return difference / sum(row.documents for row in chains), "; ".join(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """One run among the runs of its flow. Cost is USD a document, None when unknown; the others are shares."""

    run_id: str
    started_at: float
    documents: int
    cost: Decimal | None
    deferred: float | None
    passed: float | None


def trend(runs: Iterable[RunRow], verdicts: Mapping[str, tuple[int, int]]) -> list[TrendPoint]:
    """The runs as points, in their order; `verdicts` are passed and scored ones by run."""
    return [
        TrendPoint(
            run_id=run.id,
            started_at=run.started_at,
            documents=run.documents,
            cost=run.cost / run.documents if run.cost is not None and run.documents else None,
            deferred=run.deferred / run.documents if run.documents else None,
            passed=verdicts[run.id][0] / verdicts[run.id][1] if run.id in verdicts else None,
        )
        for run in runs
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What the runs with one tag cost: USD, and the calls whose cost nobody knows."""

    tag: str  # such as `team`; empty for the runs without tags
    value: str
    runs: int
    documents: int
    attempts: int
    cost_known: Decimal
    cost_unknown: int


def chargeback(runs: Iterable[RunRow]) -> list[Charge]:
    """The runs by tag and value, in that order, those without a tag last. A run counts under each of its tags."""
    groups: dict[tuple[str, str], list[RunRow]] = {}
    for run in runs:
        for tag in (run.tags or {}).items() or [("", "")]:
            groups.setdefault(tag, []).append(run)
    return [
        Charge(
            tag=tag,
            value=value,
            runs=len(mine),
            documents=sum(run.documents for run in mine),
            attempts=sum(run.attempts for run in mine),
            cost_known=sum((run.cost_known for run in mine), Decimal(0)),
            cost_unknown=sum(run.cost_unknown for run in mine),
        )
        for (tag, value), mine in sorted(
            groups.items(), key=lambda group: (not group[0][0], group[0])
        )
    ]
