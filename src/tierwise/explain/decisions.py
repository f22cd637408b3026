"""Explanations of routing decisions: past ones from the ledger alone, or one that is made now."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from tierwise.errors import (
    ConfigError,
    Misuse,
    TierwiseError,
    UnknownName,
    unknown_name,
)
from tierwise.ledger import Ledger, RunRow
from tierwise.policy.router import choices, route
from tierwise.policy.rules import Features
from tierwise.project import Project
from tierwise.records import Attempt, Document, Outcome, Route
from tierwise.steps.golden_settings import load_settings
from tierwise.steps.prompts import Prompt
from tierwise.steps.step import Step
from tierwise.text.amounts import plural
from tierwise.text.tokens import count_tokens, estimate_prompt_tokens

if TYPE_CHECKING:
    from tierwise.engine import Engine
    from tierwise.text.vectors import Encoder

_SHOWN = 10  # names in an error
# Fields of a route and of an outcome, as scripts get them.
_ROUTE = (
    *("step", "rule", "reason", "review"),
    *("features", "thresholds", "agrees_with", "choices", "rejected"),
    *("keeps", "transports"),
)
_OUTCOME = ("status", "model", "value", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One decision, its reasons, and the calls and the outcome of a past one."""

    document_id: str
    route: Route
    policy_hash: str
    # Of a past run, the guards that rejected a candidate; else all guards that apply.
    guards: tuple[str, ...]
    earlier: Mapping[str, Any] = field(default_factory=dict)  # step -> accepted value
    # of a group: the ids of its members
    members: tuple[str, ...] = ()
    # of a member: the ids of its groups
    groups: tuple[str, ...] = ()
    run: RunRow | None = None  # None: a decision that was made just now
    outcome: Outcome | None = None
    # attempt id -> the model's answer
    answers: Mapping[str, str] = field(default_factory=dict)
    # attempt id -> the deciding words with their weights
    words: Mapping[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)

    @property
    def used(self) -> tuple[Attempt, ...]:
        """The attempts on the way to the outcome."""
        # Shadow calls come last: they are made after the outcome.
        before_shadow = takewhile(
            lambda attempt: attempt.kind != "shadow", self._attempts
        )
        return tuple(before_shadow)

    @property
    def shadow(self) -> tuple[Attempt, ...]:
        """The shadow calls: those to another model afterwards, for comparison."""
        return self._attempts[len(self.used) :]

    @property
    def _attempts(self) -> tuple[Attempt, ...]:
        if self.outcome is None:
            return ()
        return self.outcome.attempts

    def data(self) -> dict[str, Any]:
        """Return everything as plain data, for scripts."""
        chosen = asdict(self.route)
        outcome = None
        if self.outcome is not None:
            outcome = {name: getattr(self.outcome, name) for name in _OUTCOME}
        run_id = None
        if self.run is not None:
            run_id = self.run.id
        return {
            "document": self.document_id,
            "run": run_id,
            "policy_hash": self.policy_hash,
            "guards": list(self.guards),
            "members": list(self.members),
            "groups": list(self.groups),
            "earlier": dict(self.earlier),
            **{name: chosen[name] for name in _ROUTE},
            "attempts": [self._attempt_data(attempt) for attempt in self.used],
            "shadow": [self._attempt_data(attempt) for attempt in self.shadow],
            "outcome": outcome,
        }

    def _attempt_data(self, attempt: Attempt) -> dict[str, Any]:
        return {
            **asdict(attempt),
            "text": self.answers.get(attempt.id),
            "words": self.words.get(attempt.id, ()),
        }


# ---- a past decision -----------------------------------------------------------------------------


def explain(
    ledger: Ledger, run: RunRow, document: str, step: str | None = None
) -> list[Explanation]:
    """Return the decisions about one document in a run, by step.

    `document` is its id, or a unique part of the id. Raises UnknownName for a document or step that
    the run does not have, and Misuse for an ambiguous part.
    """
    document_id = _find_document(ledger, run, document)
    rows = ledger.runs.outcomes(run.id, document_id)
    outcomes = [row.outcome for row in sorted(rows, key=lambda row: row.recorded_at)]
    steps = [outcome.step for outcome in outcomes]
    if step is not None and step not in steps:
        raise UnknownName(f"step of {document_id} in run {run.id}", step, steps)
    # The values that the next step could see.
    earlier: dict[str, Any] = {}
    members = ledger.groups.members(run.id, document_id)
    groups = ledger.groups.groups_with(run.id, document_id)
    explanations = []
    for outcome in outcomes:
        if step in (None, outcome.step):
            attempts = tuple(ledger.runs.attempts(run.id, document_id, outcome.step))
            complete = replace(outcome, attempts=attempts)
            explanation = _explain(ledger, run, document_id, complete, dict(earlier))
            explanation = replace(
                explanation,
                members=tuple(member.id for member in members),
                groups=groups,
            )
            explanations.append(explanation)
        if outcome.status == "accepted":
            earlier[outcome.step] = outcome.value
    return explanations


def _find_document(ledger: Ledger, run: RunRow, name: str) -> str:
    """Return the id of the run's document that has this id, or this part in its id alone."""
    # A document has an outcome for each step, and so several rows.
    rows = ledger.runs.outcomes(run.id)
    document_ids = list(dict.fromkeys(row.document_id for row in rows))
    if name in document_ids:
        return name
    matching = [document_id for document_id in document_ids if name in document_id]
    kind = f"document in run {run.id}"
    if not matching and run.finished_at is None:
        unknown = unknown_name(kind, name, document_ids[:_SHOWN])
        raise Misuse(
            f"{unknown}; the run has not ended: {plural(len(document_ids), 'document')} so far; ask "
            "again later, or name an earlier run with --run"
        )
    if not matching:
        raise UnknownName(kind, name, document_ids[:_SHOWN])
    if len(matching) == 1:
        return matching[0]
    raise Misuse(
        f"'{name}' fits several documents: {_some_names(matching)}; give more of the id"
    )


def _some_names(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    text = ", ".join(names[:_SHOWN])
    others = len(names) - _SHOWN
    if others > 0:
        text += f" and {others} more"
    return text


def _explain(
    ledger: Ledger,
    run: RunRow,
    document_id: str,
    outcome: Outcome,
    earlier: Mapping[str, Any],
) -> Explanation:
    # An outcome without a route was not decided by rules: the document was skipped, say.
    chosen = outcome.route or Route(step=outcome.step, rule="none", models=())
    answers = {}
    for attempt in outcome.attempts:
        if attempt.error:
            continue
        reply = ledger.runs.reply(attempt.call_hash)
        if reply is not None:
            answers[attempt.id] = reply.text
    # Rules may have changed during the run, so the attempts know better than the run.
    policy_hash = run.policy_hash
    if outcome.attempts:
        policy_hash = outcome.attempts[0].policy_hash
    guards = [
        rejection.detail for rejection in chosen.rejected if rejection.kind == "guard"
    ]
    return Explanation(
        document_id=document_id,
        route=chosen,
        policy_hash=policy_hash,
        guards=tuple(dict.fromkeys(guards)),
        earlier=earlier,
        run=run,
        outcome=outcome,
        answers=answers,
    )


def with_words(
    project: Project, explanation: Explanation, moved_to: Sequence[Path] = ()
) -> Explanation:
    """Return the explanation with the deciding words of trained classifiers.

    They need the document's text, which the ledger does not have: the file is read again, in the
    source or in the folders that it may have `moved_to`. Without it, the explanation is returned
    as it is.
    """
    attempts = (*explanation.used, *explanation.shadow)
    learned = [
        attempt
        for attempt in attempts
        if _is_learned(project, attempt.model) and not attempt.error
    ]
    if not learned:
        return explanation
    document_hash = learned[0].document_hash
    source = project.root
    if explanation.run is not None:
        source = project.root / str(explanation.run.parameters.get("source", ""))
    text = None
    for folder in (source, *moved_to):
        if text is None:
            text = _read_again(project, folder, explanation.document_id, document_hash)
    if text is None:
        return explanation
    # Here, as most explanations need neither classifiers nor, below, the readers.
    from tierwise.gateway.learned.files import load, trained_file

    words = {}
    for attempt in learned:
        # The classifier may be gone by now, or of another version.
        with suppress(TierwiseError):
            encoders = _encoders_here(project, attempt.model)
            classifier = load(trained_file(project.root, attempt.model), encoders)
            words[attempt.id] = classifier.explain(text)
    return replace(explanation, words=words)


def _encoders_here(project: Project, name: str) -> list[Encoder]:
    """Return the embedders of a classifier. Raises Misuse for one on a server.

    An explanation sends nothing anywhere.
    """
    catalog = project.catalog
    encoders: list[Encoder] = []
    for embedder in catalog.model(name).embedder:
        from tierwise.gateway.embedders import open_embedder

        if not catalog.embedder(embedder).is_embedded:
            raise Misuse(f"{embedder} is on a server")
        encoders.append(open_embedder(catalog, embedder, os.environ))
    return encoders


def _is_learned(project: Project, name: str) -> bool:
    model = project.catalog.models.get(name)
    return model is not None and model.learned is not None


def _read_again(
    project: Project, source: Path, document_id: str, document_hash: str
) -> str | None:
    """Return the document's text of then; None if its file is gone or has changed."""
    from tierwise.documents import file_of, read_documents

    path = file_of(source, document_id)
    if path is None:
        return None
    batches = read_documents(
        path,
        sensitivity="restricted",
        incomplete="accept",
        settings=project.reading,
    )
    for batch in batches:
        for document in batch.load():
            if document.hash == document_hash:
                return document.text
    return None


# ---- a decision of now --------------------------------------------------------------------


def decide(
    engine: Engine, features: Features, *, budget_left: Decimal | None = None
) -> Explanation:
    """Return the router's decision about such a document, with the models available here.

    The prompt is counted with a document of `features.tokens` tokens and the parameters of the
    golden set. Raises UnknownName for a step without a prompt.
    """
    policy = engine.policy
    step, parameters = step_of(engine.project, features.step)
    prompt = next(
        (prompt for prompt in engine.prompts if prompt.head.step == features.step), None
    )
    if prompt is None:
        steps = (prompt.head.step for prompt in engine.prompts)
        raise UnknownName("step", features.step, steps)
    frame = _frame_tokens(prompt, features, parameters)
    features = replace(features, prompt_tokens=features.tokens + frame)
    limit = prompt.head.max_output_tokens
    splits = False
    current = None
    if step is not None:
        splits = bool(step.splits)
        current = engine.current(step, parameters)
    chosen = route(
        features,
        policy,
        max_output_tokens=limit,
        splits=splits,
        budget_left=budget_left,
        current=current,
    )
    expected = choices(
        chosen, features, policy, max_output_tokens=limit, current=current
    )
    recorded = _recorded_features(features, limit, budget_left)
    guards = [guard.name for guard in policy.rules.guards if guard.applies(features)]
    return Explanation(
        document_id="",
        route=replace(chosen, choices=expected, features=recorded),
        policy_hash=policy.hash,
        guards=tuple(guards),
        earlier=features.outcomes,
    )


def _frame_tokens(
    prompt: Prompt, features: Features, parameters: Mapping[str, Any]
) -> int:
    """Return the tokens of the prompt without the document's own."""
    outcomes = {
        name: Outcome(step=name, status="accepted", value=value)
        for name, value in features.outcomes.items()
    }
    empty = Document(
        id="",
        text="",
        language=features.language,
        metadata=features.tags,
        outcomes=outcomes,
    )
    try:
        messages = prompt.render(empty, {"part": None, **parameters})
    except ConfigError:
        # It needs a parameter that only a flow knows. The template is about as long.
        return count_tokens(prompt.source)
    return estimate_prompt_tokens(messages)


def _recorded_features(
    features: Features, max_output_tokens: int, budget_left: Decimal | None
) -> dict[str, Any]:
    """Return the features as the ledger records them for a past decision."""
    # The step and the earlier outcomes have places of their own in an explanation.
    names = [part.name for part in fields(features)]
    recorded = {
        name: getattr(features, name)
        for name in names
        if name not in ("step", "outcomes")
    }
    left = None
    if budget_left is not None:
        left = str(budget_left)
    return {**recorded, "max_output_tokens": max_output_tokens, "budget_left": left}


def step_of(project: Project, name: str) -> tuple[Step | None, Mapping[str, Any]]:
    """Return the step in tasks/ with the output model and the parameters of its golden set.

    The step is None if it is not in tasks/.
    """
    try:
        step = project.load_step(name)
    except UnknownName:
        return None, {}
    settings = load_settings(project.root / "golden" / f"{step.name}.yaml")
    if settings.returns:
        # `tierwise certify` reports an output model that cannot be imported.
        with suppress(ImportError, AttributeError, ValueError):
            step = replace(step, returns=resolve_name(settings.returns))
    return step, settings.parameters
