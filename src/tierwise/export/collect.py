"""Accepted answers as training data: chat-format JSON Lines for fine-tuning.

Some texts never leave: golden texts, those that are more sensitive than wanted, and those that a
guard keeps in the house. A model that is trained elsewhere is one more catalog entry, certified
like any other.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tierwise.documents import iter_documents
from tierwise.documents.readers.settings import ReadingSettings
from tierwise.errors import Misuse
from tierwise.evidence.training.labelled import split
from tierwise.explain.decisions import step_of
from tierwise.export.answers import (
    AcceptedAnswer,
    ExportFilter,
    Judgements,
    choose_answers,
    query_parts,
    read_answers,
)
from tierwise.export.golden_overlap import GoldenTexts
from tierwise.policy.rules import features
from tierwise.records import Document, Message, Sensitivity, highest, rank
from tierwise.steps.prompts import Prompt
from tierwise.text.language import detect
from tierwise.text.terms import normalised
from tierwise.text.tokens import count_tokens

if TYPE_CHECKING:
    from pathlib import Path

    from tierwise.ledger import Ledger
    from tierwise.project import Project
    from tierwise.steps.step import Step

__all__ = ["Export", "ExportFilter", "TrainingExample", "collect"]

_SALT = "tierwise export"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingExample:
    """One conversation to learn from; `id` is the SHA-256 of the document's text."""

    id: str
    text: str = field(repr=False)
    messages: tuple[Message, ...] = field(repr=False)
    answer: AcceptedAnswer

    @property
    def line(self) -> str:
        """One line of JSON in the chat format of trainers."""
        messages = [
            {"role": message.role, "content": message.content}
            for message in self.messages
        ]
        return json.dumps({"messages": messages}, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The training examples of a step; `left_out` counts documents by the reason."""

    step: Step
    prompt: Prompt
    parameters: Mapping[str, Any]
    schema: Mapping[str, Any]
    train: tuple[TrainingExample, ...]
    validation: tuple[TrainingExample, ...]
    left_out: Mapping[str, int]

    @property
    def examples(self) -> tuple[TrainingExample, ...]:
        """All of them."""
        return self.train + self.validation


def collect(
    project: Project,
    ledger: Ledger,
    step: str,
    wanted: ExportFilter,
    *,
    validation: float = 0.1,
) -> Export:
    """Return the accepted answers of a step as conversations, with the prompt as it is today.

    About the share `validation` of the documents is held out; the choice depends on their texts
    alone. Raises UnknownName, Misuse, ConfigError for a damaged golden set, and LedgerError.
    """
    spec, parameters = step_of(project, step)
    if spec is None:
        spec = project.load_step(step)  # raises
    spec.require_model("train on")
    records = read_answers(ledger, project, spec.name)
    question = spec.question(parameters)
    judgements = Judgements(ledger, spec.name, question, records.answers)
    # `left_out` is counted on by the steps that follow
    chosen, left_out = choose_answers(records, judgements, wanted, question)
    kept = _not_too_sensitive(chosen, records.sensitivities, wanted, left_out)
    sources = wanted.sources or tuple(records.sources)
    documents = _find_documents(
        ledger, kept, records.sensitivities, sources, project.reading
    )
    builder = _ExampleBuilder(project, spec, parameters, wanted)
    examples = builder.examples(kept, documents, left_out)
    held_out, train = split(examples, validation, _SALT)
    return Export(
        step=spec,
        prompt=builder.prompt,
        parameters=parameters,
        schema=builder.schema,
        train=train,
        validation=held_out,
        left_out=dict(left_out.most_common()),
    )


def _not_too_sensitive(
    answers: Iterable[AcceptedAnswer],
    sensitivities: Mapping[str, Sensitivity],
    wanted: ExportFilter,
    left_out: Counter[str],
) -> list[AcceptedAnswer]:
    kept = []
    for answer in answers:
        level = sensitivities[answer.document_hash]
        if rank(level) > rank(wanted.sensitivity_max):
            left_out[_too_sensitive(level)] += 1
        else:
            kept.append(answer)
    return kept


def _too_sensitive(level: Sensitivity) -> str:
    return f"{level}; --sensitivity-max {level} takes them too"


def _find_documents(
    ledger: Ledger,
    answers: Sequence[AcceptedAnswer],
    sensitivities: Mapping[str, Sensitivity],
    sources: Iterable[Path],
    reading: ReadingSettings,
) -> dict[str, Document]:
    """Return the documents by hash, as the step saw them.

    Texts come from the ledger, else from the sources, where an unchanged text has the same hash.
    """
    by_hash = {answer.document_hash: answer for answer in answers}
    texts: dict[str, str] = {}
    for hashes in query_parts(by_hash):
        texts |= ledger.retention.texts(hashes)
    read: dict[str, Document] = {}
    for source in sources:
        without_text = by_hash.keys() - texts.keys()
        missing = without_text - read.keys()
        if missing and source.exists():
            read |= _read_source(source, without_text, reading)

    documents: dict[str, Document] = {}
    for document_hash, answer in by_hash.items():
        own = read.get(document_hash)
        text = texts.get(document_hash)
        if text is None:
            if own is None:
                continue
            text = own.text
        sensitivity = sensitivities[document_hash]
        metadata: dict[str, Any] = dict(answer.tags)
        if own is not None:
            # the file may say that it is more sensitive than it was when the step ran
            sensitivity = highest(sensitivity, own.sensitivity)
            metadata |= own.metadata
        documents[document_hash] = Document(
            id=answer.document_id,
            text=text,
            sensitivity=sensitivity,
            language=answer.language or detect(text),
            metadata=metadata,
            outcomes=answer.earlier,
        )
    return documents


def _read_source(
    source: Path, wanted: Iterable[str], reading: ReadingSettings
) -> dict[str, Document]:
    """Return a source's documents with the wanted hashes, with the sensitivity that they declare.

    Of equal texts, the strictest is returned.
    """
    hashes = set(wanted)
    documents: dict[str, Document] = {}
    try:
        found = iter_documents(
            source, sensitivity="public", incomplete="accept", settings=reading
        )
        for document in found:
            if document.hash not in hashes:
                continue
            before = documents.get(document.hash)
            if before is None or rank(document.sensitivity) > rank(before.sensitivity):
                documents[document.hash] = document
    except Misuse:  # an empty folder: then there is nothing to find
        pass
    return documents


class _ExampleBuilder:
    """Builds conversations from answers and their documents, and counts those that become none."""

    def __init__(
        self,
        project: Project,
        step: Step,
        parameters: Mapping[str, Any],
        wanted: ExportFilter,
    ) -> None:
        self.prompt = project.prompts[step.prompt]
        self.schema = step.schema(parameters)
        self._step = step
        self._parameters = {"part": None, **parameters}
        self._wanted = wanted
        self._rules = project.rules
        self._outside_tiers = [
            name
            for name, tier in project.catalog.tiers.items()
            if not tier.stays_in_house
        ]
        encoder = project.near_duplicate_encoder(os.environ)
        self._golden = GoldenTexts(project.root / "golden", encoder)

    def examples(
        self,
        answers: Iterable[AcceptedAnswer],
        documents: Mapping[str, Document],
        left_out: Counter[str],
    ) -> list[TrainingExample]:
        """Return one example for each text, in the order of their hashes."""
        examples: dict[str, TrainingExample] = {}
        # of equal texts the first is taken, so answers that a person judged come first
        ordered = sorted(
            answers, key=lambda answer: (answer.judgement is None, answer.document_hash)
        )
        for answer in ordered:
            document = documents.get(answer.document_hash)
            reason = self._reason_left_out(answer, document)
            if document is None or reason:
                left_out[str(reason)] += 1
                continue
            words = normalised(document.text)
            if words in examples:
                left_out[
                    "the same text as another document, but for case, spaces and punctuation"
                ] += 1
                continue
            examples[words] = self._example(answer, document)
        return sorted(examples.values(), key=lambda example: example.id)

    def _reason_left_out(
        self, answer: AcceptedAnswer, document: Document | None
    ) -> str | None:
        # the first reason that applies is the one that is counted
        if document is None:
            return "the text is not kept, and in no source folder; --source names one"
        if rank(document.strictest) > rank(self._wanted.sensitivity_max):
            return _too_sensitive(document.strictest)
        if self._kept_in_house(answer, document):
            return "a guard keeps it in the house; --in-house takes them for a training there"
        if self._golden.overlaps(document.text):
            return "in a golden set, or nearly"
        if not self._fits_schema(answer.value):
            return "the answer does not fit the schema"
        return None

    def _kept_in_house(self, answer: AcceptedAnswer, document: Document) -> bool:
        """Return True if a guard keeps a document from any tier outside the house."""
        if self._wanted.in_house:
            return False
        if document.hash != answer.document_hash:
            # A group. A guard looks at its members, whose metadata is not on record: any may match.
            return any(
                guard.forbids(tier)
                for guard in self._rules.guards
                for tier in self._outside_tiers
            )
        seen_by_rules = features(
            self._step,
            document,
            tokens=count_tokens(document.text),
            prompt_tokens=0,
            budget_used=0,
        )
        return any(
            self._rules.forbidden(tier, seen_by_rules) for tier in self._outside_tiers
        )

    def _fits_schema(self, value: Any) -> bool:
        from jsonschema import Draft202012Validator

        return Draft202012Validator(self.schema).is_valid(value)

    def _example(self, answer: AcceptedAnswer, document: Document) -> TrainingExample:
        # the schema's order, whatever the order of the answer
        value = {name: answer.value[name] for name in self.schema["properties"]}
        text = json.dumps(value, ensure_ascii=False)
        reply = Message("assistant", text)
        question = self.prompt.render(document, self._parameters)
        messages = (*question, reply)
        return TrainingExample(
            id=document.hash, text=document.text, messages=messages, answer=answer
        )
