"""Accepted answers as training data: chat-format JSON Lines for a fine-tune, with nothing in it that must not be.

What leaves is named: golden texts never do, and what is more sensitive than wanted, or what a guard keeps in the
house, does not either. A model that is trained elsewhere is one more catalog entry, to be certified like any other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tierwise.documents import iter_documents
from tierwise.errors import Misuse
from tierwise.evidence.training.labelled import split
from tierwise.explain.decisions import step_of
from tierwise.export.answers import Answer, Judgements, Wanted, choose, in_parts, read_answers
from tierwise.export.golden_overlap import Measured
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

__all__ = ["Example", "Export", "Wanted", "collect"]

_SALT = "tierwise export"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One conversation to learn from; `id` is the SHA-256 of the document's text."""

    id: str
    text: str = field(repr=False)
    messages: tuple[Message, ...] = field(repr=False)
    answer: Answer

    @property
    def line(self) -> str:
        """As trainers read it: one line of JSON."""
        messages = [{"role": message.role, "content": message.content} for message in self.messages]
        return json.dumps({"messages": messages}, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is to be learnt from a step's answers; `left_out` counts documents by the reason."""

    step: Step
    prompt: Prompt
    parameters: Mapping[str, Any]
    schema: Mapping[str, Any]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    left_out: Mapping[str, int]

    @property
    def examples(self) -> tuple[Example, ...]:
        """All of them."""
        return self.train + self.validation


def collect(
    project: Project, ledger: Ledger, step: str, wanted: Wanted, *, validation: float = 0.1
) -> Export:
    """The accepted answers of a step as conversations, with the prompt as it is today and the answer that counts.

    About the share `validation` of the documents is held out; which ones hangs on their texts alone. Raises
    UnknownName, Misuse, ConfigError for a damaged golden set, and LedgerError.
    """
    spec, parameters = step_of(project, step)
    if spec is None:
        spec = project.load_step(step)  # raises
    found = read_answers(ledger, project, spec.name)
    question = spec.question(parameters)
    chosen, left_out = choose(
        found, Judgements(ledger, spec.name, question, found.answers), wanted, question
    )
    kept = _not_too_sensitive(chosen, found.sensitivities, wanted, left_out)
    documents = _documents(
        ledger, kept, found.sensitivities, wanted.sources or tuple(found.sources)
    )
    maker = _Maker(project, spec, parameters, wanted)
    made = maker.examples(kept, documents, left_out)
    held_out, learnt = split(made, validation, _SALT)
    return Export(
        step=spec,
        prompt=maker.prompt,
        parameters=parameters,
        schema=maker.schema,
        train=learnt,
        validation=held_out,
        left_out=dict(left_out.most_common()),
    )


def _not_too_sensitive(
    answers: Iterable[Answer],
    sensitivities: Mapping[str, Sensitivity],
    wanted: Wanted,
    left_out: Counter[str],
) -> list[Answer]:
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


def _documents(
    ledger: Ledger,
    answers: Sequence[Answer],
    sensitivities: Mapping[str, Sensitivity],
    sources: Iterable[Path],
) -> dict[str, Document]:
    """By hash, the documents as they were asked about: from the ledger, else from the sources, if they are the same."""
    by_hash = {answer.document_hash: answer for answer in answers}
    texts: dict[str, str] = {}
    for some in in_parts(by_hash):
        texts |= ledger.retention.texts(some)
    read: dict[str, Document] = {}
    for source in sources:
        if (by_hash.keys() - texts.keys() - read.keys()) and source.exists():
            read |= _read(source, by_hash.keys() - texts.keys())
    found = {}
    for name in by_hash.keys() & (texts.keys() | read.keys()):
        answer = by_hash[name]
        own = read.get(name)
        text = texts[name] if name in texts else read[name].text
        found[name] = Document(
            id=answer.document_id,
            text=text,
            sensitivity=highest(sensitivities[name], own.sensitivity if own else "public"),
            language=answer.language or detect(text),
            metadata={**answer.tags, **(own.metadata if own else {})},
            outcomes=answer.earlier,
        )
    return found


def _read(source: Path, wanted: Iterable[str]) -> dict[str, Document]:
    """The documents of a source that are wanted, as sensitive as they say themselves; of equal texts the strictest."""
    hashes = set(wanted)
    found = dict[str, Document]()
    try:
        for document in iter_documents(source, sensitivity="public"):
            if document.hash in hashes:
                before = found.get(document.hash)
                if before is None or rank(document.sensitivity) > rank(before.sensitivity):
                    found[document.hash] = document
    except Misuse:  # an empty folder: then there is nothing to find
        pass
    return found


class _Maker:
    """Makes conversations of answers and their documents, and counts what becomes none."""

    def __init__(
        self, project: Project, step: Step, parameters: Mapping[str, Any], wanted: Wanted
    ) -> None:
        self.prompt = project.prompts[step.prompt]
        self.schema = step.schema(parameters)
        self._step = step
        self._parameters = {"part": None, **parameters}
        self._wanted = wanted
        self._rules = project.rules
        self._outside = [
            name for name, tier in project.catalog.tiers.items() if not tier.stays_in_house
        ]
        self._measured = Measured(project.root / "golden")

    def examples(
        self, answers: Iterable[Answer], documents: Mapping[str, Document], left_out: Counter[str]
    ) -> list[Example]:
        """One for each text, in the order of their hashes."""
        made: dict[str, Example] = {}
        for answer in sorted(
            answers, key=lambda answer: (answer.person is None, answer.document_hash)
        ):
            document = documents.get(answer.document_hash)
            why = self._against(answer, document)
            if document is None or why:
                left_out[str(why)] += 1
            elif (words := normalised(document.text)) in made:
                left_out[
                    "the same text as another document, but for case, spaces and punctuation"
                ] += 1
            else:
                made[words] = self._example(answer, document)
        return sorted(made.values(), key=lambda example: example.id)

    def _against(self, answer: Answer, document: Document | None) -> str | None:
        if document is None:
            return "the text is not kept, and in no source folder; --source names one"
        if rank(document.strictest) > rank(self._wanted.sensitivity_max):
            return _too_sensitive(document.strictest)
        if self._kept_in(document):
            return "a guard keeps it in the house; --in-house takes them for a training there"
        if self._measured.has(document.text):
            return "in a golden set, or nearly"
        return None if self._fits(answer.value) else "the answer does not fit the schema"

    def _kept_in(self, document: Document) -> bool:
        """Whether a guard keeps a document from any tier outside."""
        if self._wanted.in_house:
            return False
        f = features(
            self._step, document, tokens=count_tokens(document.text), prompt_tokens=0, budget_used=0
        )
        return any(self._rules.forbidden(tier, f) for tier in self._outside)

    def _fits(self, value: Any) -> bool:
        from jsonschema import Draft202012Validator

        return Draft202012Validator(self.schema).is_valid(value)

    def _example(self, answer: Answer, document: Document) -> Example:
        value = {
            name: answer.value[name] for name in self.schema["properties"]
        }  # in one order, whoever wrote it
        said = Message("assistant", json.dumps(value, ensure_ascii=False))
        messages = (*self.prompt.render(document, self._parameters), said)
        return Example(id=document.hash, text=document.text, messages=messages, answer=answer)
