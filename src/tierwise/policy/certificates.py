"""Certificates: dated proof that a model, or a chain of models, meets a floor on a golden set.

The proof is one number: the exact one-sided lower bound of the accuracy's confidence interval
(Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 1934), at the level
that the look at the labels and the candidates compared leave to one. A certificate with a
confidence threshold is proof for one floor, which is then its bound. The bound is in the file, so
that only making a certificate needs SciPy, never using one.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import Field, PlainSerializer, model_validator

from tierwise.errors import Misuse
from tierwise.policy.catalog import Catalog, Model
from tierwise.policy.floors import Floor, PairedFloor, worse_in_words
from tierwise.policy.paired import least_chance
from tierwise.policy.prices import Band
from tierwise.records import canonical_hash
from tierwise.text.amounts import plural, total
from tierwise.text.settings import Settings
from tierwise.text.yaml import read_yaml, write_yaml

ALPHA = 0.05
# floors of which it is said how many labels would show them
FLOORS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)
VALID_FOR = datetime.timedelta(days=180)
HEADER = """\
# Which model, or chain of models, was shown to meet a floor, and on what evidence.
# Written by `tierwise certify`: commit it, don't edit it. These lines on top are yours and stay.
"""
_MOST_LABELS = 1_000_000  # a floor that needs more than this is out of reach

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Usd = Annotated[
    Decimal,
    Field(ge=0),
    PlainSerializer(lambda usd: f"{usd.normalize():f}", return_type=str),
]


def lower_bound(
    errors: int, n: int, *, alpha: float = ALPHA, compared: int = 1
) -> float:
    """Return the accuracy that `errors` among `n` labels prove.

    At most a share alpha of such claims is too high.

    With `compared` candidates on the same golden set, alpha is shared by all of them.
    Raises Misuse when the counts make no sense.
    """
    if not (0 <= errors <= n and 0 < alpha < 1 and compared >= 1):
        raise Misuse(
            f"no bound for {errors} errors in {n} labels, alpha {alpha}, "
            f"{compared} candidates compared"
        )
    return _bound(errors, n, alpha / compared)


def _bound(errors: float, n: int, alpha: float) -> float:
    from scipy.special import betaincinv

    if errors >= n:
        return 0.0
    return float(betaincinv(n - errors, errors + 1, alpha))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """The further labels that would prove a floor; both numbers are 0 when it is proven already."""

    errors: int
    n: int
    floor: float
    bound: float
    # when the further labels go like the ones so far; None: never
    at_this_rate: int | None
    # when every further label passes; None: more than can be asked for
    if_all_right: int | None

    @property
    def sentence(self) -> str:
        """The shortfall in words, for the person who labels."""
        so_far = f"{plural(self.errors, 'error')} in {plural(self.n, 'label')}"
        shown = f"{so_far}: an accuracy of at least {shortened(self.bound)} is shown"
        if self.if_all_right == 0:
            return f"{shown}, which covers the floor of {self.floor:g}"
        if self.if_all_right is None:
            return f"{shown}; no number of labels shows {self.floor:g}"
        best = f"{self.if_all_right} more without an error"
        if self.n == 0:
            return f"there are no labels yet; {self.floor:g} needs {best}"
        if self.at_this_rate is None:
            fewer = f"{best} would show it, more like these never will"
            return f"{shown}; {self.floor:g} needs fewer errors: {fewer}"
        return f"{shown}; {self.floor:g} needs about {self.at_this_rate} more like these, or {best}"


def labels_needed(
    errors: int, n: int, floor: float, *, alpha: float = ALPHA, compared: int = 1
) -> Shortfall:
    """Return the number of further labels that would prove `floor`, after `errors` among `n`.

    Raises Misuse like `lower_bound`.
    """
    shared_alpha = alpha / compared
    at_this_rate = None
    if n > 0 and (n - errors) / n > floor:
        at_this_rate = _further(errors, n, floor, shared_alpha, rate=errors / n)
    if_all_right = None
    if floor < 1:
        if_all_right = _further(errors, n, floor, shared_alpha, rate=0.0)
    return Shortfall(
        errors=errors,
        n=n,
        floor=floor,
        bound=lower_bound(errors, n, alpha=alpha, compared=compared),
        at_this_rate=at_this_rate,
        if_all_right=if_all_right,
    )


def _further(
    errors: int, n: int, floor: float, alpha: float, *, rate: float
) -> int | None:
    """Return the fewest further labels, with errors at `rate`, whose bound reaches the floor."""

    def proves(more: int) -> bool:
        return _bound(errors + rate * more, n + more, alpha) >= floor

    if proves(0):
        return 0
    high = 1
    while not proves(high):
        high *= 2
        if high > _MOST_LABELS:
            return None
    # Bisection: `low` labels do not prove the floor, `high` labels do.
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if proves(middle):
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The project as it is now, which a certificate must agree with to be valid."""

    # catalog name -> hash of the model, its few-shot examples and its limits
    identities: Mapping[str, str]
    prompt_hash: str
    step_hash: str
    today: datetime.date
    # catalog name -> hash of the model alone, which paid answers are kept for
    calls: Mapping[str, str] = field(default_factory=dict)
    # catalog name -> what is missing here to know the model
    unidentified: Mapping[str, str] = field(default_factory=dict)
    # golden set's file name -> hash of what is right by it
    measures: Mapping[str, str] = field(default_factory=dict)
    # the rules' `escalate`
    escalate: Mapping[str, Any] = field(default_factory=dict)
    # golden set's file name -> hash of its examples, where a certificate depends on all of them
    goldens: Mapping[str, str] = field(default_factory=dict)
    # the output's fields of a step by field; nothing for other steps
    fields: tuple[str, ...] = ()
    # models -> the reason for their demotion or suspension
    demoted: Mapping[tuple[str, ...], str] = field(default_factory=dict)

    def evidence(
        self, models: Sequence[str], golden: str, threshold: float | None = None
    ) -> dict[str, Any]:
        """Return the fields of a certificate that say what it was measured with."""
        return {
            "models": tuple(models),
            "identities": {name: self.identities[name] for name in models},
            "prompt_hash": self.prompt_hash,
            "step_hash": self.step_hash,
            "measure_hash": self.measures.get(golden, ""),
            "escalate_hash": escalation_hash(self.escalate, models, threshold),
            "golden": golden,
        }


def escalation_hash(
    escalate: Mapping[str, Any], models: Sequence[str], threshold: float | None
) -> str:
    """Return the hash of the part of the rules' `escalate` that these models' results depend on.

    An answer of one model alone that fails a check counts as an error, wherever it would go. With
    a threshold, the answers that are handed on do not count; with re-asks, some are mended.
    """
    if not escalate:
        return ""
    parts = dict(escalate)
    if len(models) == 1:
        del parts["most"]
        used = parts.keys() - {"on"}
        if threshold is None and not used:
            return ""
    return canonical_hash(parts)


class MeanUsage(Settings):
    """Mean tokens a document, counting documents that never reached the model as 0."""

    prompt_tokens: Annotated[float, Field(ge=0)]
    completion_tokens: Annotated[float, Field(ge=0)]
    cached_tokens: Annotated[float, Field(ge=0)] = 0
    cache_write_tokens: Annotated[float, Field(ge=0)] = 0
    cache_write_1h_tokens: Annotated[float, Field(ge=0)] = 0

    def cost(self, model: Model, band: Band = "online") -> Decimal | None:
        """Return the USD a document at the model's current price; None when it is unknown."""
        price = model.price_in(band)
        if price is None:
            return None
        prompt = Decimal(str(self.prompt_tokens))
        cached = Decimal(str(self.cached_tokens))
        completion = Decimal(str(self.completion_tokens))
        written = Decimal(str(self.cache_write_tokens))
        written_1h = Decimal(str(self.cache_write_1h_tokens))
        return price.cost_of_tokens(prompt, cached, completion, written, written_1h)


class Certificate(Settings):
    """Dated proof for one step and one model, or a chain in order, certified as what it delivers.

    `n` counts the items that it had to answer: the whole golden set, or, for a single model with a
    `threshold`, the items that reach it, since the rest go on to another model. An item without an
    answer (`deferred`) counts as an error: the accuracy is over all `n`. `alpha` is what this
    `look` at the step's labels may spend, and `compared` the number of candidates that share it.
    """

    step: str
    models: Annotated[tuple[str, ...], Field(min_length=1)]  # catalog names
    identities: Mapping[str, str]  # catalog name -> Current.identities
    prompt: str  # label, such as "classify v1"
    prompt_hash: str
    # of the output's schema, the checks' code, the parameters and the earlier steps
    step_hash: str
    measure_hash: str = ""  # of the code and the criteria that say what is right
    escalate_hash: str = ""  # of the rules' `escalate`
    golden: str  # file name
    golden_hash: str
    n: Annotated[int, Field(ge=1)]
    errors: Count
    deferred: Count = 0  # of the errors, those without an answer
    compared: Annotated[int, Field(ge=1)] = 1
    alpha: Annotated[float, Field(gt=0, lt=1)] = ALPHA
    bound: Annotated[float, Field(ge=0, lt=1)]
    # 1 for the first look at the step's labels; None: made before looks were counted
    look: Annotated[int, Field(ge=1)] | None = None
    # the floor that it was made for; None: none was set
    floor: Share | None = None
    # what it is proof of beside a reference, in place of an accuracy: see `PairedFloor`
    at_most_worse: Annotated[float, Field(gt=0, lt=1)] | None = None
    than: str | None = None  # the reference, a catalog name
    than_identity: str | None = None  # see Current.identities
    lost: Count | None = None  # items that the reference alone has right
    gained: Count | None = None  # items that these models alone have right
    # of the whole golden set, as far as it is a file of the project
    golden_file_hash: str | None = None
    # catalog name -> what its server called the model, where it said; see `policy.sentinel`
    served: Mapping[str, tuple[str, ...]] | None = None
    # when the last of its answers was made
    served_since: float | None = None
    items: Annotated[int, Field(ge=1)] | None = None  # golden items that were measured
    # of the items with a wrong answer, the first digits of their texts' SHA-256
    wrong: tuple[str, ...] | None = None
    # below this confidence the first model hands the document on
    threshold: float | None = None
    # share of the golden set that the first model answers itself, in all fields where it `keeps`
    coverage: Share | None = None
    # of the thresholds that were fixed before the golden set was looked at, for a classifier
    thresholds_hash: str | None = None
    # of a chain by field: model -> field that is kept -> the confidence that it needs (None: any)
    keeps: Mapping[str, Mapping[str, Share | None]] | None = None
    # USD a document at the prices of that day; None when unknown
    mean_cost: Usd | None = None
    # catalog name -> tokens a document, so that new prices change the order
    mean_usage: Mapping[str, MeanUsage] | None = None
    latency_p50_s: Annotated[float, Field(ge=0)] | None = None
    judged_by: str | None = None  # the model that judged by a rubric
    # labels by people that the judge was held against
    human_labels: Count | None = None
    false_passes: Count | None = None  # wrong answers among them that the judge passed
    date: datetime.date
    # void from this day on
    expires: datetime.date = Field(
        default_factory=lambda data: data["date"] + VALID_FOR
    )
    machine: str = ""
    tierwise_version: str

    @model_validator(mode="after")
    def _fits_together(self) -> Certificate:
        if len(set(self.models)) < len(self.models):
            raise ValueError("a chain names each model once")
        if set(self.identities) != set(self.models):
            raise ValueError("`identities` needs one entry for each of `models`")
        if not self.deferred <= self.errors <= self.n:
            raise ValueError(
                "`deferred` items are among the `errors`, and those among the `n` items"
            )
        if (self.threshold is None and self.keeps is None) != (self.coverage is None):
            raise ValueError("`threshold` and `coverage` go together")
        if self.judged_by and not self.human_labels:
            raise ValueError(
                "a judge never certifies alone: `judged_by` needs `human_labels`"
            )
        if self.mean_usage is not None and set(self.mean_usage) != set(self.models):
            raise ValueError("`mean_usage` needs one entry for each of `models`")
        if not set(self.keeps or ()) <= set(self.models):
            raise ValueError("`keeps` names a model that is not one of `models`")
        if self.expires <= self.date:
            raise ValueError("`expires` must be later than `date`")
        # The bound is recomputed without SciPy: a certificate edited by hand is refused at load.
        most_chance = self.alpha / self.compared * (1 + 1e-6)
        if self.at_most_worse is not None:
            self._check_comparison(most_chance)
        if self.bound and _tail(self.errors, self.n, self.bound) > most_chance:
            raise ValueError(
                "`bound` claims more than `errors` and `n` prove; run `tierwise certify` again"
            )
        return self

    def _check_comparison(self, most_chance: float) -> None:
        """Raise ValueError for a comparison that its own counts do not show."""
        worse = self.at_most_worse
        counts = (self.lost, self.gained)
        if worse is None or None in (*counts, self.than, self.than_identity):
            raise ValueError(
                "`at_most_worse` needs `than`, `than_identity`, `lost` and `gained`"
            )
        lost, gained = self.lost or 0, self.gained or 0
        if self.bound or lost + gained > self.n:
            raise ValueError(
                "a certificate beside a reference has `bound: 0`, and no more than `n` items "
                "`lost` and `gained`"
            )
        if least_chance(lost, gained, self.n, worse) > most_chance:
            raise ValueError(
                "`at_most_worse` claims more than `lost`, `gained` and `n` prove; "
                "run `tierwise certify` again"
            )

    @property
    def evidence_hash(self) -> str:
        """SHA-256 (hex) of what was measured, which a later verdict on it names."""
        return canonical_hash(
            [
                self.step,
                list(self.models),
                dict(self.identities),
                self.prompt_hash,
                self.step_hash,
                self.golden_hash,
                self.n,
                self.errors,
                None
                if self.served is None
                else {k: list(v) for k, v in self.served.items()},
                self.date.isoformat(),
            ]
        )

    @property
    def claim(self) -> str:
        """What it is proof of, in words."""
        if self.at_most_worse is not None:
            return worse_in_words(self.at_most_worse, self.than)
        return f"an accuracy of at least {shortened(self.bound)}"

    @property
    def accuracy(self) -> float:
        """Share of the `n` items that passed."""
        return (self.n - self.errors) / self.n

    @property
    def proof(self) -> str:
        """The evidence in a few words."""
        level = f"{1 - self.alpha:.0%} sure"
        if self.compared > 1:
            level += f" among {self.compared} compared"
        errors = plural(self.errors, "error")
        if self.at_most_worse is not None:
            return (
                f"{self.lost} lost and {self.gained} gained in {self.n} beside {self.than} "
                f"show {self.claim} ({level}, {self.date})"
            )
        return (
            f"{errors} in {self.n} show {shortened(self.bound)} ({level}, {self.date})"
        )

    @property
    def passes(self) -> float:
        """Share of the documents that need no further model."""
        answered = 1 - self.deferred / self.n
        if self.partial and self.coverage is not None:
            return self.coverage * answered
        return answered

    @property
    def partial(self) -> bool:
        """True when it is proof only for documents on which its one model is confident."""
        return self.threshold is not None and len(self.models) == 1

    def cost(self, catalog: Catalog) -> Decimal | None:
        """Return the USD a document at the catalog's prices; None when unknown."""
        if self.mean_usage is None:
            return self.mean_cost
        return total(
            usage.cost(catalog.model(name)) for name, usage in self.mean_usage.items()
        )

    def covers(self, floor: Floor) -> bool:
        """Return True when the proven accuracy reaches a floor, or the comparison is as strict."""
        if isinstance(floor, PairedFloor):
            if self.at_most_worse is None:
                return False
            return self.at_most_worse <= floor.worse and self.than in floor.references
        return self.at_most_worse is None and self.bound >= floor

    def escalation(self, escalate: Mapping[str, Any]) -> str:
        """Return the hash of the part of the rules' `escalate` that this result depends on."""
        return escalation_hash(escalate, self.models, self.threshold)

    def void_reasons(self, current: Current) -> str | None:
        """Return every change that voids this certificate, in one line; None while it is valid.

        A model, the prompt, the schema, a check, an earlier step, the measure, the rules for
        escalation, time and a demotion void it. A price never does.
        """
        reasons = []
        for name, identity in self.identities.items():
            fault = _identity_fault("model", name, identity, current)
            if fault is not None:
                reasons.append(fault)
        reasons += self._void_comparison(current)
        if self.prompt_hash != current.prompt_hash:
            reasons.append(f"the prompt is no longer the one measured ({self.prompt})")
        if self.step_hash != current.step_hash:
            reasons.append(
                "the step's schema, checks, parameters or an earlier step changed"
            )
        if self.measure_hash != current.measures.get(self.golden, ""):
            reasons.append("what counts as right changed (the measure or its criteria)")
        if self.escalate_hash != self.escalation(current.escalate):
            reasons.append("`escalate` in the rules changed")
        if current.today >= self.expires:
            reasons.append(f"it expired on {self.expires}")
        if self.models in current.demoted:
            reasons.append(current.demoted[self.models])
        return "; ".join(reasons) or None

    def _void_comparison(self, current: Current) -> list[str]:
        """Return what voids the comparison with a reference; nothing for an accuracy."""
        if self.at_most_worse is None or self.than is None:
            return []
        reasons = []
        if self.than not in self.identities and self.than_identity is not None:
            fault = _identity_fault(
                "the reference", self.than, self.than_identity, current
            )
            if fault is not None:
                reasons.append(fault)
        if (self.golden_file_hash or "") != current.goldens.get(self.golden, ""):
            reasons.append(
                f"the golden set {self.golden} changed, on which it was compared with {self.than}"
            )
        return reasons


def _identity_fault(
    what: str, name: str, identity: str, current: Current
) -> str | None:
    """Return why a model is no longer the one that was measured; None if it is."""
    if name in current.unidentified:
        return f"{what} {name} cannot be identified here: {current.unidentified[name]}"
    if name not in current.identities:
        return f"the catalog has no model '{name}'"
    if current.identities[name] != identity:
        return f"{what} {name} changed"
    return None


class AgreementCertificate(Certificate):
    """Dated proof that a model's answers agree with a teacher's, who may be wrong itself.

    `errors` are disagreements, and answers that the teacher or the model did not give. `golden` is
    the file with the teacher's labels. It is no proof of correctness, and is never taken for one:
    these certificates have a list of their own, and floors of their own in the rules.
    """

    shows: Literal["agreement"] = "agreement"
    teacher: str  # catalog name
    teacher_identity: str  # Current.identities

    @model_validator(mode="after")
    def _has_another_teacher(self) -> AgreementCertificate:
        if self.teacher in self.models:
            raise ValueError(
                "a model agrees with itself: `teacher` is one of the `models`"
            )
        return self

    @property
    def proof(self) -> str:
        """The evidence in a few words."""
        disagreements = plural(self.errors, "disagreement")
        return (
            f"{disagreements} in {self.n} show {shortened(self.bound)} agreement with "
            f"{self.teacher}, not correctness ({1 - self.alpha:.0%} sure, {self.date})"
        )

    def void_reasons(self, current: Current) -> str | None:
        """Return every change that voids this certificate, in one line; None while it is valid.

        Another teacher under the same name voids it too.
        """
        reasons = []
        of_models = super().void_reasons(current)
        if of_models:
            reasons.append(of_models)
        if self.teacher in current.unidentified:
            missing = current.unidentified[self.teacher]
            reasons.append(
                f"the teacher {self.teacher} cannot be identified here: {missing}"
            )
        elif self.teacher not in current.identities:
            reasons.append(f"the catalog has no teacher '{self.teacher}'")
        elif current.identities[self.teacher] != self.teacher_identity:
            reasons.append(f"the teacher {self.teacher} changed")
        return "; ".join(reasons) or None


class FieldCertificate(Certificate):
    """Dated proof for one field of a step by field, and one model.

    `items` counts the golden items that say what is right in the field, and `n` those of them
    whose value the model keeps: it passes its checks, and is as sure as the `threshold` asks.
    """

    field: str

    @model_validator(mode="after")
    def _is_of_one_model(self) -> FieldCertificate:
        if len(self.models) != 1:
            raise ValueError("a certificate of a field is one of a single model")
        if self.keeps is not None:
            raise ValueError("`keeps` is for a chain, not for a field")
        return self

    @property
    def kept(self) -> float:
        """Share of the items whose value is kept."""
        if self.coverage is not None:
            return self.coverage
        return self.n / max(self.n, self.items or 0)

    def escalation(self, escalate: Mapping[str, Any]) -> str:
        """Return the hash for `escalate`: a value that fails a check is always handed on."""
        return escalation_hash(escalate, self.models, 0.0)


class Look(Settings):
    """One look at a step's labels: some candidates were tested on them, whatever came of it."""

    step: str
    # None: at people's labels; a teacher's labels have an alpha of their own
    shows: Literal["agreement"] | None = None
    number: Annotated[int, Field(ge=1)]  # decides what it may spend of alpha
    golden: str  # file name
    n: Annotated[int, Field(ge=1)]  # golden items
    floor: Share | None = None
    at_most_worse: float | None = None  # in place of a floor
    candidates: tuple[str, ...]  # such as "small" and "small > large"
    # hash of all that the result depends on: the same look again is no further one
    tried: str
    date: datetime.date


class Certificates(Settings):
    """All certificates of a project, one for each step and chain, in the order of these names.

    Of single fields, there is one for each step, model and field.
    """

    version: Literal[1] = 1
    certificates: tuple[Certificate, ...] = ()
    # of agreement with a teacher: never looked through for correctness
    agreements: tuple[AgreementCertificate, ...] = ()
    # of single fields: never looked through for whole answers
    fields: tuple[FieldCertificate, ...] = ()
    looks: tuple[Look, ...] = ()  # the oldest first

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of everything that routing may depend on."""
        left_out = {"looks"}
        # What came later changes no hash while nothing uses it.
        for section in ("agreements", "fields"):
            if not getattr(self, section):
                left_out.add(section)
        meaning = self.model_dump(mode="json", exclude=left_out)
        for section in ("certificates", "agreements", "fields"):
            for certificate in meaning.get(section, ()):
                if certificate["keeps"] is None:
                    del certificate["keeps"]
        return canonical_hash(meaning)

    def number_of_look(
        self, step: str, tried: str, shows: Literal["agreement"] | None = None
    ) -> int:
        """Return the number that a look at a step's labels has: its old one, or the next."""
        of_step = [
            look for look in self.looks if look.step == step and look.shows == shows
        ]
        for look in of_step:
            if look.tried == tried:
                return look.number
        if of_step:
            return max(look.number for look in of_step) + 1
        if shows == "agreement":
            return 1
        # Certificates of earlier versions come from looks that were not counted.
        uncounted = {
            certificate.golden_hash
            for certificate in self.certificates
            if certificate.step == step
        }
        return len(uncounted) + 1

    @cached_property
    def _by_key(self) -> dict[tuple[str, tuple[str, ...]], Certificate]:
        return {
            (certificate.step, certificate.models): certificate
            for certificate in self.certificates
        }

    def find(self, step: str, models: Sequence[str]) -> Certificate | None:
        """Return the certificate of this chain, valid or not; None when there is none."""
        return self._by_key.get((step, tuple(models)))

    def missing_proof(
        self, step: str, models: Sequence[str], floor: Floor, current: Current
    ) -> str | None:
        """Return why this chain is not shown capable of a floor; None when it is."""
        certificate = self.find(step, models)
        if certificate is None:
            return f"not certified for {step}; `tierwise certify {step}` measures it"
        reasons = certificate.void_reasons(current)
        if reasons:
            return f"its certificate is void: {reasons}"
        if not certificate.covers(floor):
            if isinstance(floor, PairedFloor):
                return f"not shown to be {floor.words}: {certificate.proof}"
            return f"below the floor of {floor:g}: {certificate.proof}"
        return None

    def valid_for(
        self, step: str, floor: Floor, current: Current
    ) -> tuple[Certificate, ...]:
        """Return all valid certificates of a step that reach a floor."""
        return tuple(
            certificate
            for certificate in self.certificates
            if certificate.step == step
            and certificate.covers(floor)
            and certificate.void_reasons(current) is None
        )

    def certified(
        self, step: str, models: Sequence[str], floor: Floor, current: Current
    ) -> Certificate | None:
        """Return the valid certificate that shows this chain capable of a floor, or None."""
        if self.missing_proof(step, models, floor, current) is not None:
            return None
        return self.find(step, models)

    @property
    def all(self) -> tuple[Certificate, ...]:
        """Return the certificates of correctness, then those of agreement: of whole answers."""
        return (*self.certificates, *self.agreements)

    @property
    def of_correctness(self) -> tuple[Certificate, ...]:
        """Return the certificates of correctness, of whole answers and of single fields."""
        return (*self.certificates, *self.fields)

    def find_field(self, step: str, model: str, field: str) -> FieldCertificate | None:
        """Return the certificate of a model for one field, valid or not."""
        return self._fields_by_key.get((step, model, field))

    def fields_of(self, step: str, model: str) -> tuple[FieldCertificate, ...]:
        """Return the certificates of a model for single fields, valid or not."""
        return tuple(
            certificate
            for certificate in self.fields
            if certificate.step == step and certificate.models == (model,)
        )

    @cached_property
    def _fields_by_key(self) -> dict[tuple[str, str, str], FieldCertificate]:
        return {
            (certificate.step, certificate.models[0], certificate.field): certificate
            for certificate in self.fields
        }

    def find_agreement(
        self, step: str, models: Sequence[str]
    ) -> AgreementCertificate | None:
        """Return the certificate of this chain's agreement with a teacher, valid or not."""
        for certificate in self.agreements:
            if certificate.step == step and certificate.models == tuple(models):
                return certificate
        return None

    def with_certificate(self, certificate: Certificate) -> Certificates:
        """Return a copy with this one in place of the one for the same step and chain."""
        # Sorted, so that a file under version control changes only where something was measured.
        if isinstance(certificate, FieldCertificate):
            return self._with(fields=_replaced(self.fields, certificate))
        if isinstance(certificate, AgreementCertificate):
            return self._with(agreements=_replaced(self.agreements, certificate))
        return self._with(certificates=_replaced(self.certificates, certificate))

    def with_look(self, look: Look) -> Certificates:
        """Return a copy with this look, unless it is there already."""
        known = {(each.step, each.tried) for each in self.looks}
        if (look.step, look.tried) in known:
            return self
        return self._with(looks=(*self.looks, look))

    def _with(self, **changed: Any) -> Certificates:
        """Return a copy with other lists; not `model_copy`, which would copy what is cached."""
        lists = {
            "certificates": self.certificates,
            "agreements": self.agreements,
            "fields": self.fields,
            "looks": self.looks,
        }
        return Certificates(**{**lists, **changed})


CertificateKey = tuple[str, tuple[str, ...], str]


def key_of(certificate: Certificate) -> CertificateKey:
    """Return step, models and field: a list of certificates has each once, in this order."""
    field = certificate.field if isinstance(certificate, FieldCertificate) else ""
    return certificate.step, certificate.models, field


C = TypeVar("C", bound=Certificate)


def _replaced(listed: Sequence[C], certificate: C) -> tuple[C, ...]:
    by_key = {key_of(each): each for each in listed}
    by_key[key_of(certificate)] = certificate
    return tuple(by_key[key] for key in sorted(by_key))


def load_certificates(path: Path) -> Certificates:
    """Read certificates.yaml; no file is no certificates. Raises ConfigError with file and line."""
    if not Path(path).exists():
        return Certificates()
    source = read_yaml(path)
    certificates = source.validate(Certificates)
    lists: dict[str, Sequence[Certificate]] = {
        "certificates": certificates.certificates,
        "agreements": certificates.agreements,
        "fields": certificates.fields,
    }
    for section, listed in lists.items():
        seen: set[CertificateKey] = set()
        for i, certificate in enumerate(listed):
            key = key_of(certificate)
            if key in seen:
                names = ", ".join(certificate.models)
                what = certificate.step
                if isinstance(certificate, FieldCertificate):
                    what = f"{what}, field {certificate.field},"
                raise source.error(
                    f"a second certificate of {what} for {names}; keep one",
                    (section, i),
                )
            seen.add(key)
    return certificates


def save_certificates(
    path: Path, certificates: Iterable[Certificate], look: Look | None = None
) -> Certificates:
    """Add certificates to the file, in place of those for the same step and chain; return all.

    `look` is the one that they come from: it is kept though it gives no certificate. The file is
    replaced at once or not at all. Raises ConfigError when it is not valid or cannot be written.
    """
    updated = load_certificates(path)
    for certificate in certificates:
        updated = updated.with_certificate(certificate)
    if look is not None:
        updated = updated.with_look(look)
    data = updated.model_dump(exclude_none=True)
    # A threshold of None says that a field is kept whatever its confidence.
    for number, certificate in enumerate(updated.certificates):
        if certificate.keeps is not None:
            data["certificates"][number]["keeps"] = certificate.keeps
    for section in ("agreements", "fields", "looks"):
        if not data[section]:
            del data[section]
    write_yaml(path, data, header=HEADER)
    return updated


class Candidate(NamedTuple):
    """A model with its cost (USD a document, None: unknown) and the share of accepted answers."""

    name: str
    cost: Decimal | None
    passes: float


def order_by_expected_cost(
    candidates: Iterable[Candidate], *, last: Candidate | None = None
) -> tuple[Candidate, ...]:
    """Return the order that costs least until an answer is accepted.

    That is by cost / share of accepted answers.

    Exact when the candidates fail independently of each other. With `last`, whose answer is taken
    in any case, only those remain that pay: trying 1 before `last` pays when c1 < p1 * c_last
    (Chen, Zaharia and Zou, "FrugalGPT", 2023, made the cascade; the ratio rule is that of
    least-cost testing). An unknown cost comes last, and never pays before `last`. Ties are ordered
    by name.
    """
    ordered = sorted(candidates, key=_cost_per_acceptance)
    if last is None:
        return tuple(ordered)
    limit = math.inf if last.cost is None else Fraction(last.cost)
    paying = [
        candidate
        for candidate in ordered
        if candidate.cost is not None
        and Fraction(candidate.cost) < Fraction(candidate.passes) * limit
    ]
    return (*paying, last)


def expected_cost(chain: Iterable[Candidate]) -> Decimal | None:
    """Return the mean USD a document in this order; None when a possible cost is unknown."""
    total = Decimal(0)
    reached = Decimal(1)
    for candidate in chain:
        if reached == 0:
            break
        if candidate.cost is None:
            return None
        total += reached * candidate.cost
        reached *= 1 - Decimal(str(candidate.passes))
    return total


def _cost_per_acceptance(candidate: Candidate) -> tuple[bool, bool, Fraction, str]:
    """Return a sort key: known costs first, models that never pass last, then the ratio."""
    if candidate.cost is None:
        return True, True, Fraction(0), candidate.name
    if not candidate.passes:
        return False, True, Fraction(candidate.cost), candidate.name
    ratio = Fraction(candidate.cost) / Fraction(candidate.passes)
    return False, False, ratio, candidate.name


def shortened(bound: float) -> str:
    """Return a bound with three decimals, rounded down: never more is shown than is proven."""
    return f"{math.floor(bound * 1000) / 1000:.3f}"


def _tail(errors: int, n: int, accuracy: float) -> float:
    """Return the chance of at most `errors` errors in `n` at this accuracy; a bound keeps it small.

    The binomial terms are summed as logarithms, since `n` may be large.
    """
    log_pass = math.log(accuracy)
    log_fail = math.log1p(-accuracy)
    terms = []
    for k in range(errors + 1):
        log_ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        terms.append(math.exp(log_ways + k * log_fail + (n - k) * log_pass))
    return math.fsum(terms)
