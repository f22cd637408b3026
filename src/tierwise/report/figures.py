"""The figures of a report that are worked out from the ledger and from the project's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from tierwise.ledger.rows import RunRow
from tierwise.ledger.views.answers import Tally
from tierwise.ledger.views.summary import ChainRow, CheckRow, EstimateRow, NeededRow
from tierwise.policy.catalog import Catalog, Model
from tierwise.policy.certificates import AgreementCertificate, Certificate
from tierwise.policy.floors import FloorSetting
from tierwise.policy.prices import PriceBand
from tierwise.policy.sentinel import Suspension
from tierwise.report.interval import interval
from tierwise.text.amounts import total


@dataclass(frozen=True, slots=True)
class CertificateState:
    """A certificate, and the reason that voids it; None while it is in force."""

    certificate: Certificate
    void: str | None

    @property
    def teacher(self) -> str | None:
        """Return the model that a certificate of agreement is about; None for correctness."""
        if isinstance(self.certificate, AgreementCertificate):
            return self.certificate.teacher
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFacts:
    """The project's files as they are today; empty where they could not be read."""

    catalog: Catalog | None = None
    floors: Mapping[str, FloorSetting] = field(default_factory=dict)
    agreement_floors: Mapping[str, float] = field(default_factory=dict)
    certificates: Sequence[CertificateState] = ()
    suspended: Sequence[Suspension] = ()  # certificates of steps that ran
    labels_wanted: int = 0  # answers that wait for a person's label

    @property
    def best(self) -> Model | None:
        """The strongest model with a known price; of equals the most expensive."""
        best: Model | None = None
        best_key: tuple[int, Decimal, str] | None = None
        for model in self.catalog.models.values() if self.catalog else ():
            # a trained classifier knows one step alone, so it is no yardstick for a project
            if model.price == "unknown" or model.learned:
                continue
            # the name decides last, so that the same catalog always has the same best model
            key = (model.strength, model.price.output, model.name)
            if best_key is None or key > best_key:
                best = model
                best_key = key
        return best


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRate:
    """The share of answers that passed a check, with the exact 95 % interval.

    Both are None where nothing was scored.
    """

    step: str
    model: str
    check: str
    passed: int
    scored: int
    unscored: int
    rate: float | None
    interval: tuple[float, float] | None


def check_rate(row: CheckRow) -> CheckRate:
    """Return a check's counts as a rate."""
    scored = row.passed + row.failed
    rate: float | None = None
    if scored:
        rate = row.passed / scored
    return CheckRate(
        step=row.step,
        model=row.model,
        check=row.check,
        passed=row.passed,
        scored=scored,
        unscored=row.unscored,
        rate=rate,
        interval=interval(row.passed, scored),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRate:
    """The share of a step's distinct answers that were accepted, with the exact 95 % interval.

    `waiting` ones are to be approved by a person; they are in no rate.
    """

    step: str
    passed: int
    answers: int
    waiting: int
    rate: float | None
    interval: tuple[float, float] | None


def step_rate(step: str, tally: Tally) -> StepRate:
    """Return a step's counts as a rate."""
    return StepRate(
        step=step,
        passed=tally.passed,
        answers=tally.n,
        waiting=tally.waiting,
        rate=tally.rate,
        interval=interval(tally.passed, tally.n),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """The cost of a step, and of the same documents at the best model. USD; None: unknown.

    Documents that a guard keeps from the best model cost the same on both sides (`barred` calls).
    Some calls have no token counts, such as a trained classifier's. For `estimated` documents of
    these, the tokens of the prompt and of the answer give the cost at the best model; the
    `uncounted` others are in the actual cost alone. `quality` is the certified accuracy of the
    models that were used less that of the best model, as a share; None where certificates do not
    give both.
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
    # USD of the calls of known cost, and the number of the others, such as lost ones
    cost_known: Decimal
    cost_unknown: int

    @property
    def saved(self) -> Decimal | None:
        """USD; negative where it cost more, None where a call is of unknown cost."""
        if self.cost is None or self.best_cost is None:
            return None
        return self.best_cost - self.cost

    @property
    def share(self) -> float | None:
        """The saving as a share of the best model's cost."""
        # a best model that costs nothing leaves no share to compute
        if self.saved is None or not self.best_cost:
            return None
        return float(self.saved / self.best_cost)


def savings(
    needed: Iterable[NeededRow],
    estimates: Sequence[EstimateRow],
    chains: Iterable[ChainRow],
    best: Model,
    certificates: Sequence[CertificateState],
) -> list[Saving]:
    """Return each step's saving compared with the best model for every document."""
    needed_by_step: dict[str, list[NeededRow]] = {}
    for row in needed:
        needed_by_step.setdefault(row.step, []).append(row)
    # read once, then looked through for every step
    chains = list(chains)
    result: list[Saving] = []
    for step, rows in needed_by_step.items():
        step_estimates = [row for row in estimates if row.step == step]
        step_chains = [row for row in chains if row.step == step]
        quality = _quality_difference(step, step_chains, best.name, certificates)
        result.append(_step_saving(step, rows, step_estimates, best, quality))
    return result


def total_saving(rows: Sequence[Saving]) -> Saving:
    """Return all steps together; their differences in quality cannot be added up."""
    return Saving(
        step="total",
        cost=total(row.cost for row in rows),
        best_cost=total(row.best_cost for row in rows),
        calls=sum(row.calls for row in rows),
        barred=sum(row.barred for row in rows),
        uncounted=sum(row.uncounted for row in rows),
        estimated=sum(row.estimated for row in rows),
        quality=None,
        evidence="",
        cost_known=sum((row.cost_known for row in rows), Decimal(0)),
        cost_unknown=sum(row.cost_unknown for row in rows),
    )


def _step_saving(
    step: str,
    rows: Sequence[NeededRow],
    estimates: Sequence[EstimateRow],
    best: Model,
    quality: _QualityDifference,
) -> Saving:
    # barred: a guard forbids the best model for these documents
    barred = [row for row in rows if row.barred]
    comparable = [row for row in rows if not row.barred]

    # barred documents would have cost at the best model what they cost now
    costs_at_best = [_row_cost(row) for row in barred]
    costs_at_best += [_price(best, row) for row in comparable]
    costs_at_best += [_price(best, row) for row in estimates]
    uncounted = sum(row.uncounted for row in comparable)
    return Saving(
        step=step,
        cost=total(_row_cost(row) for row in rows),
        best_cost=total(costs_at_best),
        calls=sum(row.counted for row in rows),
        barred=sum(row.counted for row in barred),
        uncounted=uncounted - sum(row.calls for row in estimates),
        estimated=sum(row.documents for row in estimates),
        quality=quality.difference,
        evidence=quality.evidence,
        cost_known=sum((row.cost_known for row in rows), Decimal(0)),
        cost_unknown=sum(row.cost_unknown for row in rows),
    )


def _price(best: Model, row: NeededRow | EstimateRow) -> Decimal:
    """Return the USD of a row's calls at a model whose price is known."""
    if best.price == "unknown":
        raise ValueError(f"{best.name} has no price")
    # some providers charge more for each token of a long prompt
    band: PriceBand = best.price
    if row.long and best.price.above:
        band = best.price.above
    usage = row.usage
    written = usage.cache_write_tokens
    written_1h = usage.cache_write_1h_tokens
    # The band's own formula: the tokens of all calls together say nothing of one prompt's length.
    return PriceBand.cost_of_tokens(
        band,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        written,
        written_1h,
    )


def _row_cost(row: NeededRow) -> Decimal | None:
    """Return what a row cost, in USD; None when one of its calls is of unknown cost."""
    return None if row.cost_unknown else row.cost_known


@dataclass(frozen=True, slots=True)
class _QualityDifference:
    """A certified difference in accuracy, or None, with the certificates used or missing."""

    difference: float | None
    evidence: str


def _quality_difference(
    step: str,
    chains: Sequence[ChainRow],
    best: str,
    certificates: Sequence[CertificateState],
) -> _QualityDifference:
    """Return the certified accuracy of the accepted answers less that of the best model.

    An answer of the best model is as good as its own. The others count by the certificate of their
    route, or of the part of it that was asked.
    """
    if not chains:
        return _QualityDifference(None, "no answer was accepted")
    others = [row for row in chains if row.model != best]
    if not others:
        return _QualityDifference(0.0, f"all answers are {best}'s")
    valid: dict[tuple[str, ...], Certificate] = {}
    teachers: dict[tuple[str, ...], str] = {}
    for state in certificates:
        certificate = state.certificate
        if certificate.step != step or state.void is not None:
            continue
        if isinstance(certificate, AgreementCertificate):
            # how often two models say the same is no accuracy
            teachers[certificate.models] = certificate.teacher
        else:
            valid[certificate.models] = certificate
    # the chain of the best model alone: the others are compared with its accuracy
    top = valid.get((best,))
    for row in others:
        asked = _asked_models(row)
        if asked in teachers and asked not in valid and row.models not in valid:
            only = (
                f"{' > '.join(asked)} is certified for agreement with {teachers[asked]} alone, "
                "which is no accuracy"
            )
            return _QualityDifference(None, only)
    if top is None:
        return _QualityDifference(None, f"no certificate in force for {best}")

    difference = 0.0
    # a dict in place of a set: it keeps the order in which the sentence names them
    evidence = {f"{best} {top.accuracy:.1%} of {top.n}": None}
    for row in others:
        asked = _asked_models(row)
        # the whole route's certificate, else that of its models up to the one that answered
        evidence_of_row = valid.get(row.models) or valid.get(asked)
        if evidence_of_row is None:
            missing = f"no certificate in force for {' > '.join(asked)}"
            return _QualityDifference(None, missing)
        models = " > ".join(evidence_of_row.models)
        # accuracies on different examples differ for other reasons than the models
        if evidence_of_row.golden_hash != top.golden_hash:
            apart = f"{models} and {best} were measured on different examples"
            return _QualityDifference(None, apart)
        # weighted by documents, so that the sum over all is a mean
        difference += row.documents * (evidence_of_row.accuracy - top.accuracy)
        evidence[f"{models} {evidence_of_row.accuracy:.1%} of {evidence_of_row.n}"] = (
            None
        )
    documents = sum(row.documents for row in chains)
    return _QualityDifference(difference / documents, "; ".join(evidence))


def _asked_models(row: ChainRow) -> tuple[str, ...]:
    """Return the models of a route up to the one that answered."""
    # then nothing is known of the models before it, and its own certificate has to do
    if row.model not in row.models:
        return (row.model,)
    end = row.models.index(row.model) + 1
    return row.models[:end]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """One run among the runs of its flow. Cost is USD a document, the rest are shares."""

    run_id: str
    started_at: float
    documents: int
    cost: Decimal | None
    deferred: float | None
    passed: float | None


def trend(
    runs: Iterable[RunRow], verdicts: Mapping[str, tuple[int, int]]
) -> list[TrendPoint]:
    """Return the runs as points, in their order.

    `verdicts` counts the passed and the scored ones by run.
    """
    return [_trend_point(run, verdicts.get(run.id)) for run in runs]


def _trend_point(run: RunRow, verdicts: tuple[int, int] | None) -> TrendPoint:
    cost: Decimal | None = None
    deferred: float | None = None
    if run.documents:
        cost = None if run.cost is None else run.cost / run.documents
        deferred = run.deferred / run.documents
    passed: float | None = None
    if verdicts is not None:
        # a run without a scored verdict has no entry, so the divisor is never 0
        passed_verdicts, scored_verdicts = verdicts
        passed = passed_verdicts / scored_verdicts
    return TrendPoint(
        run_id=run.id,
        started_at=run.started_at,
        documents=run.documents,
        cost=cost,
        deferred=deferred,
        passed=passed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """The cost of the runs with one tag: USD, and the number of calls of unknown cost."""

    tag: str  # such as `team`; empty for the runs without tags
    value: str
    runs: int
    documents: int
    attempts: int
    cost_known: Decimal
    cost_unknown: int


def chargeback(runs: Iterable[RunRow]) -> list[Charge]:
    """Return the cost by tag and value, in that order, runs without a tag last.

    A run counts under each of its tags.
    """
    groups: dict[tuple[str, str], list[RunRow]] = {}
    for run in runs:
        # runs without tags form a group of their own, under an empty tag
        for tag in (run.tags or {}).items() or [("", "")]:
            groups.setdefault(tag, []).append(run)
    # False sorts before True, which puts the empty tag last
    tags = sorted(groups, key=lambda tag: (not tag[0], tag))
    return [_charge(tag, groups[tag]) for tag in tags]


def _charge(tag: tuple[str, str], runs: Sequence[RunRow]) -> Charge:
    name, value = tag
    return Charge(
        tag=name,
        value=value,
        runs=len(runs),
        documents=sum(run.documents for run in runs),
        attempts=sum(run.attempts for run in runs),
        cost_known=sum((run.cost_known for run in runs), Decimal(0)),
        cost_unknown=sum(run.cost_unknown for run in runs),
    )
