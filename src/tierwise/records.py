"""The frozen values that everything else passes around.

Their methods derive one value from another and do nothing else.

Their `repr` leaves out texts, answers and metadata, so that these are in no log or traceback.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import orjson

_CANONICAL = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)

Sensitivity = Literal["public", "internal", "confidential", "restricted"]
SENSITIVITIES: tuple[Sensitivity, ...] = get_args(Sensitivity)

# Whether a document goes on that has lost a part on reading: always, unless whole pages are missing
# (then it waits for a person), or never.
Incomplete = Literal["accept", "wait_for_pages", "wait"]
INCOMPLETE: tuple[Incomplete, ...] = get_args(Incomplete)
# Whether a batch goes on to the next step before new batches begin, or all go step by step.
Order = Literal["depth", "breadth"]

# `waiting`: a call of the document is in a provider batch that is not over, and the process ended.
Status = Literal["accepted", "deferred", "skipped", "rejected", "waiting"]
AttemptKind = Literal[
    "first", "retry", "fallback", "escalation", "repair", "reask", "judge", "shadow"
]
Role = Literal["system", "user", "assistant"]
# How a call is sent: as a request of its own, or as an item of a provider's batch.
Transport = Literal["online", "batch"]

# Why an outcome is not accepted. Code acts upon this; the sentence beside it is for people.
# `report/causes.py` has a title and a remedy for each cause of a deferral.
Cause = Literal[
    "unreadable",  # deferred: the document could not be read
    "budget",  # deferred: no budget left for any model that may still be asked
    "unpriced",  # deferred: a budget applies, and the price of every model left is unknown
    "review",  # deferred: an answer waits for a reviewer's approval
    "uncertified",  # deferred: every model left needs a certificate, and has none
    "no_model",  # deferred: no route matches, or every candidate is rejected for another reason
    "failed_checks",  # deferred: models answered, and no answer passed its checks
    "outage",  # deferred: calls failed by faults that pass, such as a 500 or a rate limit
    "setup",  # deferred: a key, an account, an address, weights or a server has to be put right
    "refused",  # deferred: every model refused this request, or gave no usable reply
    "function",  # deferred: the project's function of a step without a model failed
    # deferred: every call failed before an answer could be checked; up to version 0.1 for each of
    # the three above
    "provider_fault",
    "members",  # deferred: a group whose members are not all there, or are too many
    "earlier_step",  # skipped: an earlier step's outcome was deferred or rejected
    "condition",  # skipped: the step's `only=` condition is false
    "reviewer",  # rejected by a reviewer
    "batch",  # waiting: for a provider batch, in this step or an earlier one
]
# Why a route leaves a model out.
RejectionKind = Literal[
    "guard",  # a guard forbids the model's tier
    # a key, an address or the weights are missing, or the model failed for good
    "unavailable",
    "other_step",  # a trained classifier of another step
    "context_length",  # the prompt does not fit the context window
    "unknown_price",  # unpriced, and a budget applies
    "budget",  # its worst case exceeds what is left
    "uncertified",  # no valid certificate shows it capable
    "cost",  # certified, but more expensive than the chosen models
]


# The step of the outcomes of groups, and of documents that are in none.
GROUP_BY = "group_by"

# What does the work of a step without a model, as routes on record name it in place of a rule.
# `function:policy` stands for the model of the step `policy` then.
OwnKind = Literal["function", "http"]
OWN_KINDS: tuple[OwnKind, ...] = get_args(OwnKind)


def is_own(model: str) -> bool:
    """Return True for what stands for the model of a step that has none."""
    kind, colon, _ = model.partition(":")
    return bool(colon) and kind in OWN_KINDS


def rank(sensitivity: Sensitivity) -> int:
    """Return the position in public < internal < confidential < restricted."""
    return SENSITIVITIES.index(sensitivity)


def highest(*sensitivities: Sensitivity) -> Sensitivity:
    """Return the strictest of some sensitivities; none at all means restricted."""
    return max(sensitivities, key=rank, default="restricted")


def canonical_hash(value: Any) -> str:
    """Return the SHA-256 (hex) of a value's canonical JSON.

    It is the same on every machine and in every order of keys.
    """
    return hashlib.sha256(_canonical_json(value)).hexdigest()


def _canonical_json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=str, option=_CANONICAL)
    except TypeError:
        # Half a character, a key that is no text, or a number beyond 64 bits: slower, but as good.
        text = json.dumps(
            value,
            sort_keys=True,
            ensure_ascii=False,
            separators=(",", ":"),
            default=str,
        )
        return text.encode("utf-8", "surrogatepass")


def text_hash(text: str) -> str:
    """Return the SHA-256 (hex) of a text, also of one with lone surrogates."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the server reported them.

    `cached_tokens` and `cache_write_tokens` are parts of `prompt_tokens`: what the server read from
    its prompt cache, and what it wrote to it. `cache_write_1h_tokens` are the part of the latter
    that is kept for an hour. `unclear` says where the server's counts contradict each other: then
    these are the reading of them that costs most.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    unclear: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class PageImage:
    """The image of a page, for a model that sees. Its bytes are in no record."""

    sha256: str
    width: int
    height: int
    media_type: str
    data: bytes = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message, with the images that go before its text."""

    role: Role
    content: str = field(repr=False)
    images: tuple[PageImage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request to one model, before anything is known about where it is served."""

    model: str  # catalog name
    # what the answer depends on besides the prompt: provider's model name, weights
    identity: str
    messages: tuple[Message, ...]
    max_tokens: int
    response_schema: Mapping[str, Any] | None = None
    schema_name: str = "answer"
    temperature: float = 0.0
    confidence: bool = False  # whether to ask how likely each token was
    # the document's: a classifier's embedder may be outside the house. Not part of the hash
    sensitivity: Sensitivity = "restricted"
    # the first messages that the provider is to write to its prompt cache. Not part of the hash
    cached_messages: int = 0
    # what a step without a model does. Not part of the hash: `identity` and `messages` describe it
    own: Any = field(default=None, repr=False, compare=False)

    @cached_property
    def hash(self) -> str:
        """Identity of the call: an equal one that was paid once is never paid again."""
        messages = [[message.role, message.content] for message in self.messages]
        parts: list[object] = [
            self.identity,
            messages,
            self.response_schema,
            self.max_tokens,
            self.temperature,
        ]
        if self.confidence:
            parts.append("confidence")
        images = [image.sha256 for message in self.messages for image in message.images]
        if images:
            parts.append(["images", *images])
        return canonical_hash(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A model's answer. `usage` is None when the server reported none."""

    text: str = field(repr=False)
    finish_reason: str
    usage: Usage | None
    latency_s: float
    served_model: str | None = None  # the name that the server gave
    # 0 to 1: the least likely token of the answer; None when the server reported none
    confidence: float | None = None
    # of `usage`, spent on thinking; None where that is not known
    thinking_tokens: int | None = None
    # as the server named it, such as "flex" or "default"; None when it named none
    service_tier: str | None = None
    # by key of the answer's JSON object, 0 to 1: the least likely token of the value
    field_confidences: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one check on one output: passed, failed, or unscored (`passed is None`).

    `field` is the output's field that it is about; None where it is about the whole output.
    """

    check: str
    passed: bool | None
    reason: str = ""
    score: float | None = None
    field: str | None = None


@dataclass(frozen=True, slots=True)
class FieldSource:
    """The model, or the reviewer, that one field of an outcome is from.

    `attempt` is the id of the model's attempt; None for a reviewer. `confidence` is that of the
    field's value; None where it is unknown.
    """

    model: str
    attempt: str | None = None
    confidence: float | None = None

    @property
    def is_reviewer(self) -> bool:
        """True where a person gave the field."""
        return self.attempt is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call that was or may have been billed.

    A paid call that was reused has `reused` and cost 0.
    """

    id: str
    step: str
    document_id: str
    document_hash: str
    model: str
    tier: str
    kind: AttemptKind
    call_hash: str
    prompt: str  # "classify v1"
    prompt_hash: str  # of the rendered messages
    policy_hash: str
    usage: Usage | None
    cost: Decimal | None  # USD; None when the price or the usage is unknown
    price_date: str | None  # ISO date of the price that was used
    latency_s: float
    started_at: float  # seconds since the epoch, UTC
    reused: bool = False
    error: str | None = None  # name of the error's class
    error_text: str | None = None
    finish_reason: str | None = None
    confidence: float | None = None  # of the answer, see Reply
    field_confidences: Mapping[str, float] | None = None  # of its values, see Reply
    served_model: str | None = None  # the name that the server gave the model
    text: str | None = field(default=None, repr=False)  # the answer
    verdicts: tuple[Verdict, ...] = ()
    repriced: bool = False  # the cost was filled in or changed later
    transport: Transport = "online"  # how the call was sent
    service_tier: str | None = None  # the service tier that the server reported
    # of the prompt with its head, see `Prompt.hash`; None on record before version 0.2
    template_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A model that a route left out, with the reason.

    Code acts upon `kind`; `reason` is for people. `detail` is the guard's name for a guard, and
    what is missing for an unavailable model.
    """

    model: str
    reason: str
    kind: RejectionKind
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that a route names, with its proof.

    `expected_cost` is that of one call for this document, in USD; None when it is unknown.
    """

    model: str
    expected_cost: Decimal | None
    proof: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The ordered models for one document and step, each rejected one with its reason.

    An answer of a model in `thresholds` whose confidence is lower goes on to the next one.

    In a step by field, `keeps` says which fields are kept of a model's answer, each with the
    confidence that it needs (None: any). A model that is not in it keeps each field that passes
    its checks.
    """

    step: str
    rule: str
    models: tuple[str, ...]
    rejected: tuple[Rejection, ...] = ()
    review: Literal["human"] | None = None
    reason: str = ""  # why this order, or why there is nothing to try
    thresholds: Mapping[str, float] = field(default_factory=dict)
    # model -> the teacher that it is certified to agree with, where that is why it is asked
    agrees_with: Mapping[str, str] = field(default_factory=dict)
    keeps: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()  # as recorded: one for each model
    # as recorded: model -> the transport of its first call, and why it was chosen
    transports: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # as recorded: the features that the decision was based on
    features: Mapping[str, Any] = field(default_factory=dict, repr=False)


# Left, top, right and bottom, each from 0 to 1 of the page as it is displayed, from its top left.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the words of a quotation are.

    `path` is the output's field, such as `total` or `items[2].price`. `start` and `end` are the
    span in the document's text, in characters. Where the document has pages, `page` is that of the
    first word, counted from 1, and `boxes` are those of the words on it, one for each line.
    """

    path: str
    start: int
    end: int
    page: int | None = None
    boxes: tuple[Box, ...] = ()

    def as_row(self) -> list[Any]:
        """Return the place as plain JSON data."""
        boxes = [list(box) for box in self.boxes]
        return [self.path, self.start, self.end, self.page, boxes]


def place_of_row(row: Sequence[Any]) -> Place:
    """Return the place of a row of `Place.as_row`."""
    path, start, end, page, boxes = row
    return Place(path, start, end, page, tuple(tuple(box) for box in boxes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A document's result in a step. `value` is the accepted output as plain JSON data.

    `cause` says why it is not accepted; `reason` says it in words. `quotes` is true where the
    reason may repeat words of an answer or a document, so that a deletion has to rewrite it.

    `places` are those of the quotations in `value` that the step's checks found in the document's
    text: that of the step, so after a redaction the redacted one.

    In a step by field, `sources` names the source of each field of `value`. A deferred outcome may
    have a part of the fields: then `open_fields` are the others.
    """

    step: str
    status: Status
    value: Any = field(default=None, repr=False)
    reason: str = ""
    cause: Cause | None = None
    quotes: bool = False
    model: str | None = None
    sensitivity: Sensitivity = "restricted"
    route: Route | None = None
    attempts: tuple[Attempt, ...] = ()
    sources: Mapping[str, FieldSource] = field(default_factory=dict)
    open_fields: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()

    @property
    def cost(self) -> Decimal | None:
        """USD of all attempts; None when any of them is unknown."""
        cost = Decimal(0)
        for attempt in self.attempts:
            if attempt.cost is None:
                return None
            cost += attempt.cost
        return cost

    @property
    def fields_by_source(self) -> list[str]:
        """In a step by field, each source with its fields, such as `small: company, day`."""
        fields_of: dict[str, list[str]] = {}
        for name, source in self.sources.items():
            fields_of.setdefault(source.model, []).append(name)
        return [f"{model}: {', '.join(names)}" for model, names in fields_of.items()]

    @property
    def escalated(self) -> bool:
        """True when a failed verdict sent the document on to another model."""
        return any(attempt.kind == "escalation" for attempt in self.attempts)


def id_in_run(source: str, own_id: str) -> str:
    """Return the id of a document of a run's second or later source: no other source has it."""
    return f"{source}//{own_id}"


@dataclass(frozen=True, slots=True)
class Word:
    """One word on a page.

    `start` and `end` are its span in the document's text.
    """

    text: str = field(repr=False)
    start: int
    end: int
    box: Box
    confidence: (
        float  # 0 to 1, of text recognition (OCR); 1 where the text is in letters
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PageWords:
    """The words of one page, in the order of the document's text.

    Those of a page that text recognition read have a confidence; of a page with its text in
    letters, `is_recognized` is false. `start` and `end` are the span of the page's text in the
    document's text. `width` and `height` are those of the picture that was read, in pixels, or of
    the page, in points. `turn` is the clockwise turn, in degrees, that made its text upright.
    """

    page: int  # counted from 1
    width: int
    height: int
    start: int
    end: int
    words: tuple[Word, ...] = field(repr=False)
    confidence: float  # 0 to 1: the mean of its letters
    language: str | None = None
    turn: int = 0
    is_recognized: bool = True

    def as_data(self) -> dict[str, Any]:
        """Return the page as plain JSON data; its words without their texts."""
        data: dict[str, Any] = {
            name: getattr(self, name) for name in _PAGE if name != "words"
        }
        data["words"] = [
            [word.start, word.end, *word.box, word.confidence] for word in self.words
        ]
        return data

    def moved(self, by: int) -> PageWords:
        """Return the page with all its spans moved by N characters."""
        words = tuple(
            replace(word, start=word.start + by, end=word.end + by)
            for word in self.words
        )
        return replace(self, start=self.start + by, end=self.end + by, words=words)


_PAGE = tuple(each.name for each in fields(PageWords))


def page_words(data: Mapping[str, Any], text: str) -> PageWords:
    """Return a page of `PageWords.as_data`, given the document's text."""
    words: list[Word] = []
    for start, end, left, top, right, bottom, confidence in data["words"]:
        box = (left, top, right, bottom)
        words.append(Word(text[start:end], start, end, box, confidence))
    return PageWords(**{**data, "words": tuple(words)})


@dataclass(frozen=True, slots=True)
class PageFile:
    """The file that a document's pages can be drawn from, as it was when it was read.

    `inside` leads to it where it is a member of an archive or attached to an e-mail: the key of
    each part in the one before, from the file at `path` on. `sha256` is that of the innermost one.
    A document whose text is no longer the one of `text_hash`, such as a redacted one, has no pages
    to show.
    """

    path: str
    sha256: str
    pages: int
    text_hash: str
    inside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One document of a group, as it was when the group was made.

    `values` are its accepted outputs by step. A guard that keeps a member from a model keeps its
    group from it, too: therefore language and metadata are here, and `members` where it is a group
    itself.
    """

    id: str
    hash: str
    sensitivity: Sensitivity  # the strictest of the document and of its outcomes
    language: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Document:
    """One input. Missing sensitivity means restricted.

    `id` is stable and readable (path below the source folder, `#row` for rows). Where a run reads
    several sources, the source is in front of it from the second one on. A document that could not
    be read has empty text and a deferred outcome of the step `read`. A group, made by `group_by`, is
    a document with `members`.
    """

    id: str
    text: str = field(repr=False)
    sensitivity: Sensitivity = "restricted"
    # who set it: the flow, the document itself, or the members of a group
    sensitivity_source: str = "flow"
    language: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    # the folder that it is from, below the project or absolute; empty for a program's own
    source: str = ""
    # the words of each page of a PDF or a picture that has any; none of other formats
    pages: tuple[PageWords, ...] = field(default=(), repr=False)
    # None where there are no pages to look at, and once the text was changed
    page_file: PageFile | None = field(default=None, repr=False)
    # of a group: the documents that it was made of, in their order
    members: tuple[Member, ...] = ()

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the text; of a group, that of its text and its members' hashes."""
        if not self.members:
            return text_hash(self.text)
        hashes = [member.hash for member in self.members]
        return canonical_hash([text_hash(self.text), hashes])

    @property
    def own_id(self) -> str:
        """The id within its source, without the source in front of it."""
        return self.id.removeprefix(id_in_run(self.source, ""))

    @property
    def pages_to_show(self) -> int:
        """The number of pages that a model may look at; 0 once the text was changed."""
        file = self.page_file
        if file is None or file.text_hash != self.hash:
            return 0
        return file.pages

    @property
    def deferred(self) -> Outcome | None:
        """The first deferred outcome of this document, if any."""
        outcomes = self.outcomes.values()
        return next(
            (outcome for outcome in outcomes if outcome.status == "deferred"), None
        )

    @property
    def stopped(self) -> Outcome | None:
        """The outcome that makes later steps skip this document, if any."""
        for outcome in self.outcomes.values():
            if outcome.status in ("deferred", "rejected", "waiting"):
                return outcome
        return None

    @property
    def waiting(self) -> Outcome | None:
        """The first outcome that waits for a provider batch, if any."""
        for outcome in self.outcomes.values():
            if outcome.status == "waiting":
                return outcome
        return None

    @property
    def strictest(self) -> Sensitivity:
        """The strictest of its own sensitivity and that of its outcomes.

        Anything derived from the whole document is as sensitive.
        """
        inherited = [outcome.sensitivity for outcome in self.outcomes.values()]
        return highest(self.sensitivity, *inherited)

    def value(self, step: str) -> Any:
        """Return the accepted output of a step as plain data, or None."""
        outcome = self.outcomes.get(step)
        if outcome is None or outcome.status != "accepted":
            return None
        return outcome.value

    def with_text(self, text: str) -> Document:
        """Return this document with another text, such as a part of it or a redacted one.

        It has no pages: their words and pictures are those of the whole text.
        """
        return replace(self, text=text, pages=(), page_file=None)

    def with_outcome(self, outcome: Outcome) -> Document:
        """Return this document with one more outcome."""
        return replace(self, outcomes={**self.outcomes, outcome.step: outcome})


class StoredDocuments(Protocol):
    """Documents of a batch that are stored outside of memory, such as in a file."""

    def load(self) -> tuple[Document, ...]:
        """Read them into memory."""
        ...


class Batch:
    """Some documents that travel together: one Prefect task run per step and batch.

    A batch either holds its documents in memory or is a handle on stored ones. `load()` of a handle
    reads them each time, and nothing keeps them. Deliberately neither a dataclass nor iterable, so
    that Prefect treats it as one opaque value: it would otherwise walk every document to look for
    futures, and `.map` over it.
    """

    __slots__ = ("_documents", "first", "noun", "size", "total")

    def __init__(
        self,
        documents: tuple[Document, ...] | StoredDocuments,
        *,
        first: int = 1,
        total: int | None = None,
        size: int | None = None,
        noun: str = "documents",
    ) -> None:
        """`size` is the number of documents. It must be given for stored ones.

        `noun` says what they are in labels: documents, or groups of them.
        """
        self._documents = documents
        self.noun = noun
        self.first = first
        self.total = total
        self.size: int = len(documents) if isinstance(documents, tuple) else size or 0

    def load(self) -> tuple[Document, ...]:
        """Return the documents, read from where they are stored."""
        if isinstance(self._documents, tuple):
            return self._documents
        return self._documents.load()

    @property
    def label(self) -> str:
        """Such as `documents 51-100 of 640`."""
        last = self.first + self.size - 1
        label = f"{self.noun} {self.first}-{last}"
        if self.total:
            label += f" of {self.total}"
        return label

    def with_documents(self, documents: tuple[Document, ...]) -> Batch:
        """Return a batch at the same place in the run with other documents, in memory."""
        return Batch(documents, first=self.first, total=self.total, noun=self.noun)

    def as_handle(self, stored: StoredDocuments) -> Batch:
        """Return the same batch as a handle on its stored documents."""
        return Batch(
            stored,
            first=self.first,
            total=self.total,
            size=self.size,
            noun=self.noun,
        )

    def called(self, noun: str) -> Batch:
        """Return the same batch with another word for its documents."""
        return Batch(
            self._documents,
            first=self.first,
            total=self.total,
            size=self.size,
            noun=noun,
        )

    def with_total(self, total: int) -> Batch:
        """Return the same batch in a run of `total` documents."""
        return Batch(
            self._documents,
            first=self.first,
            total=total,
            size=self.size,
            noun=self.noun,
        )

    def __repr__(self) -> str:
        return f"<Batch {self.label}>"
