"""The ledger's tables. Times are seconds since the epoch, UTC; costs are exact."""

from __future__ import annotations

import json
import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect

USD_PLACES = 12
_UNIT = Decimal(1).scaleb(-USD_PLACES)
_EXACT = Context(prec=40, rounding=ROUND_HALF_EVEN)
_LARGEST = Decimal(2**63 - 1).scaleb(-USD_PLACES)


def in_units(usd: Decimal, rounding: str = ROUND_HALF_EVEN) -> Decimal:
    """Return an amount rounded to 1e-12 USD, as it is stored.

    Raises ValueError if it is too large.
    """
    try:
        rounded = usd.quantize(_UNIT, rounding=rounding, context=_EXACT)
    except InvalidOperation:
        rounded = Decimal("NaN")
    if not rounded.is_finite() or abs(rounded) > _LARGEST:
        raise ValueError(
            f"{usd} USD is not an amount that the ledger can hold (at most {_LARGEST:.0f})"
        )
    return rounded


class Usd(TypeDecorator[Decimal]):
    """USD as a whole number of 1e-12 USD, so that sums in SQL are exact; see `in_units`."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Return USD in units of 1e-12 USD."""
        if value is None:
            return None
        units = in_units(value).scaleb(USD_PLACES, context=_EXACT)
        return int(units)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        """Return units as USD."""
        if value is None:
            return None
        units = Decimal(int(value))  # PostgreSQL returns a sum as `numeric`
        if not units:
            return Decimal(0)  # and not 0E-12, which is printed
        return units.scaleb(-USD_PLACES, context=_EXACT)


# File names and replies can contain NUL, which PostgreSQL refuses, and lone surrogates, which both
# databases refuse. Each becomes this mark and four hexadecimal digits, and so does the mark itself.
_MARK = "\N{SYMBOL FOR ESCAPE}"
_UNSTORABLE = re.compile(f"[\0\ud800-\udfff{_MARK}]")
_ESCAPED = re.compile(f"{_MARK}([0-9a-f]{{4}})")


def _escape(text: str | None) -> str | None:
    """Escape the characters that a database refuses."""
    if text is None:
        return None
    if text.isascii() and "\0" not in text:  # most texts: nothing to search for
        return text
    return _UNSTORABLE.sub(_escape_character, text)


def _escape_character(match: re.Match[str]) -> str:
    code_point = ord(match[0])
    return f"{_MARK}{code_point:04x}"


def _unescape(text: str | None) -> str | None:
    """Undo `_escape`."""
    if text is None or text.isascii():
        return text
    return _ESCAPED.sub(_unescape_character, text)


def _unescape_character(match: re.Match[str]) -> str:
    code_point = int(match[1], 16)
    return chr(code_point)


class AnyText(TypeDecorator[str]):
    """Text that may hold any character; the few that databases refuse are escaped, reversibly."""

    impl = Text
    cache_ok = True

    # A call writes about forty texts, and `process_bind_param` would take two calls for each.

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None]:  # noqa: ARG002
        """Return the function that escapes the characters that a database refuses."""
        return _escape

    def result_processor(
        self,
        dialect: Dialect,  # noqa: ARG002
        coltype: object,  # noqa: ARG002
    ) -> Callable[[str | None], str | None]:
        """Return the function that restores the text."""
        return _unescape


class Json(TypeDecorator[Any]):
    """JSON in pure ASCII, so that any text inside it can be stored. None is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return a value as JSON; a value of another type, such as a path or a date, as text."""
        if value is None:
            return None
        return json.dumps(value, default=str)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Return the value, None for NULL."""
        if value is None:
            return None
        return json.loads(value)


_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
# SQLite numbers new rows only in a primary key of type INTEGER.
_Counter = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own form
        str: AnyText,
        float: Double,
        Decimal: Usd,
        bool: Boolean,
        int: BigInteger,
    }


class Run(Base):
    """One run of a flow."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "started_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    flow: Mapped[str]
    flow_run_id: Mapped[str | None]
    flow_run_name: Mapped[str | None]
    policy_hash: Mapped[str]
    budget_usd: Mapped[Decimal | None]
    parameters: Mapped[Any] = mapped_column(Json)
    tierwise_version: Mapped[str]
    started_at: Mapped[float]
    finished_at: Mapped[float | None]
    state: Mapped[str]
    # such as {"team": "claims"}, for budgets and chargeback
    tags: Mapped[Any] = mapped_column(Json, nullable=True)
    # what `tierwise plan` expected
    plan: Mapped[Any] = mapped_column(Json, nullable=True)
    owner: Mapped[str | None]  # the process that runs it, see `leases`
    # when it counts as crashed unless that process renews its lease
    lease_until: Mapped[float | None]
    # when retention removed its rows; its totals then, see `views.runs.totals_of`
    removed_at: Mapped[float | None]
    totals: Mapped[Any] = mapped_column(Json, nullable=True)


class RunFoldersRecord(Base):
    """A source that a run read, with a folder that it wrote to."""

    __tablename__ = "run_folders"
    __table_args__ = (Index(None, "run_id"),)

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    # as JSON, see `rows.RunFolders`: equal ones are equal texts
    folders: Mapped[str]
    # whether the source is in front of its documents' ids
    is_further: Mapped[bool]


class OutputRecord(Base):
    """A folder for results, and the source that the plain names of its pages belong to."""

    __tablename__ = "outputs"

    folder: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]


class AttemptRecord(Base):
    """One attempt; `seq` is the order of recording. The answer is with its call."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index(None, "run_id", "document_id", "step"),
        # The last answers of a model with a served name.
        Index(
            "ix_attempts_served",
            "model",
            "seq",
            sqlite_where=text("served_model IS NOT NULL"),
            postgresql_where=text("served_model IS NOT NULL"),
        ),
    )

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    step: Mapped[str]
    document_id: Mapped[str]
    document_hash: Mapped[str]
    model: Mapped[str]
    tier: Mapped[str]
    kind: Mapped[str]
    call_hash: Mapped[str]
    prompt: Mapped[str]
    prompt_hash: Mapped[str]  # of the rendered messages
    template_hash: Mapped[str | None]  # of the prompt; None before it was recorded
    policy_hash: Mapped[str]
    prompt_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    # written to the server's prompt cache; the second are those that are kept for an hour
    cache_write_tokens: Mapped[int | None]
    cache_write_1h_tokens: Mapped[int | None]
    usage_unclear: Mapped[str | None]  # see `records.Usage`
    cost: Mapped[Decimal | None]
    price_date: Mapped[str | None]
    latency_s: Mapped[float]
    started_at: Mapped[float]
    reused: Mapped[bool]
    error: Mapped[str | None]
    error_text: Mapped[str | None]
    finish_reason: Mapped[str | None]
    confidence: Mapped[float | None]
    # of the values in the answer, by key
    field_confidences: Mapped[Any] = mapped_column(Json, nullable=True)
    served_model: Mapped[str | None]  # the name that the server gave the model
    # how the call was sent: online, or in a batch
    transport: Mapped[str] = mapped_column(server_default="online")
    service_tier: Mapped[str | None]  # as the server named it
    # SHA-256 of the answer; it stays when the answer is deleted
    answer_hash: Mapped[str | None]
    # the cost by the last repricing, in place of `cost`; see `RepricingRecord`
    repriced: Mapped[Decimal | None]


# What an attempt costs as far as is known now.
COST = func.coalesce(AttemptRecord.repriced, AttemptRecord.cost)


class CallRecord(Base):
    """One call by its hash: claimed while it has an owner, paid once it has a reply."""

    __tablename__ = "calls"
    __table_args__ = (
        # Without it, each attempt that retention deletes would be looked for in all calls.
        Index(None, "attempt_id"),
        Index(
            None,
            "owner",
            # Few calls have an owner at any time, and every report looks for them.
            sqlite_where=text("owner IS NOT NULL"),
            postgresql_where=text("owner IS NOT NULL"),
        ),
    )

    call_hash: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    attempt_id: Mapped[str | None] = mapped_column(ForeignKey("attempts.id"))
    reply: Mapped[Any] = mapped_column(Json, nullable=True)
    paid_at: Mapped[float | None]
    # the row of its owner's attempt, as far as it is known before the call ends
    in_flight: Mapped[Any] = mapped_column(Json, nullable=True)


class LostCallRecord(Base):
    """A call whose process died, or closed the ledger, before it recorded how the call ended.

    It may have been billed. If its attempt is recorded after all, that counts.
    """

    __tablename__ = "lost_calls"
    __table_args__ = (Index(None, "run_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)  # the attempt's id
    # no foreign key: a claim must not fail for want of an earlier run
    run_id: Mapped[str]
    attempt: Mapped[Any] = mapped_column(Json)  # its row, as far as it is known
    lost_at: Mapped[float]
    repriced: Mapped[Decimal | None]  # as of an attempt


class BatchRecord(Base):
    """A batch of calls that a provider answers later, at a lower price.

    It is on record before it is uploaded. Until then it has no `provider_id`, and `state` is
    `intended`; afterwards `state` is the provider's.
    """

    __tablename__ = "batches"
    __table_args__ = (
        Index(None, "run_id"),
        Index(None, "model", "collected_at"),
        Index(
            "ix_batches_open",
            "created_at",
            # Few batches are open at any time, and every start of a run looks for them.
            sqlite_where=text("collected_at IS NULL"),
            postgresql_where=text("collected_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  # the provider has it as metadata
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    model: Mapped[str]
    owner: Mapped[str]  # the process that uploads it
    provider_id: Mapped[str | None]
    state: Mapped[str]
    fault: Mapped[str | None]  # of the batch as a whole, in the provider's words
    items: Mapped[int]
    succeeded: Mapped[int]  # as the provider counts them; so are those that failed
    failed: Mapped[int]
    created_at: Mapped[float]  # when the intent was recorded
    submitted_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    expires_at: Mapped[float | None]
    # when all of its items were settled, released or given up
    collected_at: Mapped[float | None]


class BatchItemRecord(Base):
    """A call in a batch. While it is `waiting`, the call's claim belongs to the batch."""

    __tablename__ = "batch_items"
    __table_args__ = (Index(None, "attempt_id"),)

    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    call_hash: Mapped[str] = mapped_column(primary_key=True)
    attempt_id: Mapped[str]
    # waiting, settled, failed, released, lost; rescued: asked online meanwhile, then `late` once
    # its answer came all the same
    state: Mapped[str]
    # the row of its attempt, as far as it is known before the answer
    attempt: Mapped[Any] = mapped_column(Json, nullable=True)
    # names of those that it is reserved in
    budgets: Mapped[Any] = mapped_column(Json, nullable=True)


class RepricingRecord(Base):
    """Costs that a person filled in or changed later. Rows are only ever added."""

    __tablename__ = "repricings"

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    scope: Mapped[Any] = mapped_column(Json)  # the calls that were meant
    price: Mapped[Any] = mapped_column(Json)  # of each model, or of each call
    catalog_hash: Mapped[str | None]  # of the catalog that the price is from
    changes: Mapped[Any] = mapped_column(Json)  # [attempt, old USD or null, new USD]
    by: Mapped[str]
    note: Mapped[str]
    repriced_at: Mapped[float]


class VerdictRecord(Base):
    """One check's verdict on one attempt's output; `position` keeps the order of the checks.

    Of a check that judged field by field, `fields` has a list for each of its verdicts: the field,
    whether it passed, and the score. Then `reason` is a JSON list of their reasons.
    """

    __tablename__ = "verdicts"

    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id"), primary_key=True)
    check: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    passed: Mapped[bool | None]
    score: Mapped[float | None]
    reason: Mapped[str]
    fields: Mapped[Any] = mapped_column(Json, nullable=True)


class OutcomeRecord(Base):
    """A document's outcome in a step of a run."""

    __tablename__ = "outcomes"
    __table_args__ = (
        Index(None, "document_hash"),
        # The queue needs these alone, and a wide table is slow to read.
        Index(
            "ix_outcomes_deferred",
            "document_hash",
            sqlite_where=text("status = 'deferred'"),
            postgresql_where=text("status = 'deferred'"),
        ),
    )

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    document_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[str] = mapped_column(primary_key=True)
    document_hash: Mapped[str]
    status: Mapped[str]
    value: Mapped[Any] = mapped_column(Json, nullable=True)
    reason: Mapped[str]
    cause: Mapped[str | None]  # see `records.Cause`
    # whether the reason may repeat words of an answer or a document
    quotes: Mapped[bool]
    # models that a guard keeps from it
    barred: Mapped[Any] = mapped_column(Json, nullable=True)
    model: Mapped[str | None]
    sensitivity: Mapped[str]
    route: Mapped[Any] = mapped_column(Json, nullable=True)
    recorded_at: Mapped[float]
    question: Mapped[str | None]  # see `Step.question`
    sensitivity_source: Mapped[str | None]
    value_hash: Mapped[str | None]  # stays when the value is deleted
    # of the quotations in the value, see `records.Place`; deleted with the value
    places: Mapped[Any] = mapped_column(Json, nullable=True)
    # In a step by field: the source of each field, and the fields that have none; see `Outcome`.
    sources: Mapped[Any] = mapped_column(Json, nullable=True)
    open_fields: Mapped[Any] = mapped_column(Json, nullable=True)


class GroupMemberRecord(Base):
    """A document of a group, as it was when the group was made in a run."""

    __tablename__ = "group_members"
    __table_args__ = (Index(None, "run_id", "document_id"),)

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    group_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[str]
    document_hash: Mapped[str]
    sensitivity: Mapped[str]


class SettledRecord(Base):
    """A document that a run is done with, where retention removed the run's outcomes."""

    __tablename__ = "settled"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    document_id: Mapped[str] = mapped_column(primary_key=True)
    document_hash: Mapped[str]


class AuditRecord(Base):
    """A sample: an answer of one model, to compare with the accepted one and to label."""

    __tablename__ = "audits"
    __table_args__ = (Index(None, "step", "model"), Index(None, "run_id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    document_id: Mapped[str]
    document_hash: Mapped[str]
    step: Mapped[str]
    model: Mapped[str]  # a shadow, or the models in use
    # of that model, the prompt and the checks; evidence begins again when it changes
    identity: Mapped[str]
    value: Mapped[Any] = mapped_column(Json, nullable=True)
    accepted_model: Mapped[str]  # whose answer was used
    accepted: Mapped[Any] = mapped_column(Json, nullable=True)
    agreed: Mapped[bool | None]
    right: Mapped[bool | None]  # the label of `value`; None without one
    reviewer: Mapped[str | None]
    recorded_at: Mapped[float]
    reviewed_at: Mapped[float | None]


class LabelRecord(Base):
    """A reviewer's label of one sampled item; the last one that settles it counts.

    Rows are only ever added.
    """

    __tablename__ = "labels"
    __table_args__ = (
        Index(None, "item"),
        Index("uq_labels_request_item", "request", "item", unique=True),
    )

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    item: Mapped[str]
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    document_hash: Mapped[str]
    step: Mapped[str]
    model: Mapped[str]  # of the answer in use
    shadow: Mapped[str | None]  # the shadow, if its answer is labelled too
    word: Mapped[str]  # which is right: accepted, shadow, both or neither; or undone
    value_hash: Mapped[str | None]  # of the answer in use
    reviewer: Mapped[str]
    labelled_at: Mapped[float]
    # the id of the request; the same one is applied once
    request: Mapped[str | None]
    # whether it is the item's label; None, of older rows, is yes
    settles: Mapped[bool | None]
    # whether the person saw no model's answer
    is_blind: Mapped[bool | None]
    # the right answer, if the person gave one
    answer: Mapped[Any] = mapped_column(Json, nullable=True)
    answer_hash: Mapped[str | None]
    undoes: Mapped[int | None]  # the number of the label that this one takes back


class ComparisonRecord(Base):
    """Two variants of a step, a model with a prompt each, whose answers people compare."""

    __tablename__ = "comparisons"

    id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[str]
    first: Mapped[Any] = mapped_column(Json)
    second: Mapped[Any] = mapped_column(Json)
    created_by: Mapped[str]
    created_at: Mapped[float]


class ComparisonVerdictRecord(Base):
    """A person's verdict on two answers to one document. Rows are only ever added."""

    __tablename__ = "comparison_verdicts"
    __table_args__ = (
        Index(None, "comparison"),
        Index("uq_comparison_verdicts_request", "request", unique=True),
    )

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    comparison: Mapped[str] = mapped_column(ForeignKey("comparisons.id"))
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))  # of the first's answer
    document_id: Mapped[str]
    document_hash: Mapped[str]
    step: Mapped[str]
    word: Mapped[str]  # first, second, both or neither; or undone
    is_swapped: Mapped[bool]  # whether the second was shown on the left
    first_hash: Mapped[str]  # of the answers
    second_hash: Mapped[str]
    answer: Mapped[Any] = mapped_column(Json, nullable=True)  # the right one, if given
    answer_hash: Mapped[str | None]
    reviewer: Mapped[str]
    judged_at: Mapped[float]
    request: Mapped[str]
    undoes: Mapped[int | None]


class CanaryRecord(Base):
    """What golden items that were asked again showed of another served model.

    Rows are only ever added.
    """

    __tablename__ = "canaries"

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    step: Mapped[str]
    models: Mapped[Any] = mapped_column(Json)
    evidence: Mapped[str]  # of the certificate, see `Certificate.evidence_hash`
    model: Mapped[str]
    served: Mapped[str]
    asked: Mapped[int]
    lost: Mapped[int]
    gained: Mapped[int]
    is_restored: Mapped[bool]
    at: Mapped[float]


class ReviewRecord(Base):
    """A reviewer's decision on an outcome, or a comment; the last decision counts.

    Rows are only ever added.
    """

    __tablename__ = "reviews"
    __table_args__ = (
        Index(None, "run_id", "document_id", "step"),
        Index(None, "question", "document_hash"),
        # Requests that are sent twice are applied once; this holds also against a fault of ours.
        Index(
            "uq_reviews_request_run_id_document_id_step",
            "request",
            "run_id",
            "document_id",
            "step",
            unique=True,
        ),
    )

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    document_id: Mapped[str]
    document_hash: Mapped[str]
    step: Mapped[str]
    question: Mapped[str | None]  # see `Step.question`
    decision: Mapped[str]  # see `decisions.Word`
    value: Mapped[Any] = mapped_column(Json, nullable=True)
    value_hash: Mapped[str | None]
    model: Mapped[str | None]  # of the approved answer
    sensitivity: Mapped[str]
    reviewer: Mapped[str]
    reviewed_at: Mapped[float]
    note: Mapped[str]
    note_hash: Mapped[str | None]
    # the version that the person saw, see `decisions.Version`
    seen: Mapped[str | None]
    # the id of the request: rows that have it in common are one action
    request: Mapped[str | None]
    undoes: Mapped[int | None]  # the number of the decision that this one takes back
    # what selected the items of an action over many
    selection: Mapped[Any] = mapped_column(Json, nullable=True)
    # in a step by field: the source of each field of the value
    sources: Mapped[Any] = mapped_column(Json, nullable=True)


class AcknowledgementRecord(Base):
    """A person sees to an alert of the desk, or takes that back. Rows are only ever added."""

    __tablename__ = "acknowledgements"
    __table_args__ = (Index("uq_acknowledgements_request", "request", unique=True),)

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    alert: Mapped[str]  # its id: kind and subject
    word: Mapped[str]  # see `acknowledgements.Word`
    by: Mapped[str]
    at: Mapped[float]
    request: Mapped[str]
    undoes: Mapped[int | None]


class QuestionRecord(Base):
    """The JSON schema that each answer of a step must fit, also a reviewer's."""

    __tablename__ = "questions"

    hash: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[str]
    schema: Mapped[Any] = mapped_column(Json)


class TextRecord(Base):
    """A document's text, where the project keeps texts."""

    __tablename__ = "texts"

    document_hash: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    kept_at: Mapped[float]  # when a run last read it


class DeletionRecord(Base):
    """A deletion of texts or rows: which ones, and how many."""

    __tablename__ = "deletions"

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    scope: Mapped[Any] = mapped_column(Json)
    removed: Mapped[Any] = mapped_column(Json)
    by: Mapped[str]
    deleted_at: Mapped[float]


class SealRecord(Base):
    """The head of the chain of a run's records, or of one decision, label or deletion.

    The seals are a chain themselves.
    """

    __tablename__ = "seals"
    __table_args__ = (UniqueConstraint("kind", "subject"),)

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    kind: Mapped[str]  # see `chain.Kind`
    subject: Mapped[str]  # the run's id, or the row's number
    records: Mapped[int]
    head: Mapped[str]
    sealed_at: Mapped[float]
    previous: Mapped[str]  # the hash of the previous seal
    hash: Mapped[str]


class BudgetRecord(Base):
    """One budget: of a run, a day, a tag. `spent` and `reserved` are the sums of its entries."""

    __tablename__ = "budgets"

    name: Mapped[str] = mapped_column(primary_key=True)
    limit_usd: Mapped[Decimal]  # the limit at the last call
    granted_usd: Mapped[Decimal]  # added to the limit by top-ups
    spent_usd: Mapped[Decimal]
    reserved_usd: Mapped[Decimal]


class ReservationRecord(Base):
    """USD reserved for a call in flight, one row for each budget.

    Its lease is the claim on the call, in `calls`.
    """

    __tablename__ = "reservations"
    __table_args__ = (Index(None, "budget"),)

    id: Mapped[str] = mapped_column(primary_key=True)  # the attempt's id
    budget: Mapped[str] = mapped_column(ForeignKey("budgets.name"), primary_key=True)
    call_hash: Mapped[str]
    owner: Mapped[str]
    usd: Mapped[Decimal]


class BudgetEntry(Base):
    """One change of one budget, with the sums after it. Rows are only ever added."""

    __tablename__ = "budget_entries"
    __table_args__ = (Index(None, "budget", "seq"),)

    seq: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    budget: Mapped[str] = mapped_column(ForeignKey("budgets.name"))
    kind: Mapped[str]  # reserved, settled, lost, granted or repriced
    reservation: Mapped[str | None]
    usd: Mapped[Decimal]  # reserved, spent or added; of a repricing the difference
    limit_usd: Mapped[Decimal]  # with the top-ups
    spent_usd: Mapped[Decimal]
    reserved_usd: Mapped[Decimal]
    at: Mapped[float]
    note: Mapped[str]
