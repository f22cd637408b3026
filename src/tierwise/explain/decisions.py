"""Why this model? What happened to a document in a run, from the ledger alone; or what the router would do now."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from itertools import takewhile
from pkgutil import resolve_name
from typing import Any

from tierwise.documents import read_documents
from tierwise.engine import Engine
from tierwise.errors import ConfigError, Misuse, TierwiseError, UnknownName
from tierwise.gateway.learned.files import load, trained_file
from tierwise.ledger import Ledger, RunRow
from tierwise.policy.router import choices, route
from tierwise.policy.rules import Features
from tierwise.project import Project
from tierwise.records import Attempt, Document, Outcome, Route
from tierwise.steps.golden_settings import load_settings
from tierwise.steps.step import Step
from tierwise.text.tokens import count_tokens, estimate_prompt_tokens

_SHOWN = 10  # names in an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One decision with all that it rested on, and what came of it where it was made."""

    document_id: str
    route: Route
    policy_hash: str
    # of a past run, those that kept a candidate out; else all that hold
    guards: tuple[str, ...]
    earlier: Mapping[str, Any] = field(default_factory=dict)  # step -> accepted value
    run: RunRow | None = None  # None: nothing happened, it is what would be done
    outcome: Outcome | None = None
    # attempt id -> what the model said
    answers: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, tuple[tuple[str, float], ...]] = field(
        default_factory=dict
    )  # attempt id -> what decided

    @property
    def used(self) -> tuple[Attempt, ...]:
        """The attempts on the way to the outcome."""
        return tuple(
            takewhile(lambda attempt: attempt.kind != "shadow", self._attempts)
        )

    @property
    def shadow(self) -> tuple[Attempt, ...]:
        """The attempts of a model that was asked afterwards, to see how it would do."""
        return self._attempts[len(self.used) :]

    @property
    def _attempts(self) -> tuple[Attempt, ...]:
        return self.outcome.attempts if self.outcome else ()

    def data(self) -> dict[str, Any]:
        """Everything as plain data, for scripts."""
        chosen = asdict(self.route)
        outcome = self.outcome
        return {
            "document": self.document_id,
            "run": self.run and self.run.id,
            "policy_hash": self.policy_hash,
            "guards": list(self.guards),
            "earlier": dict(self.earlier),
            **{
                name: chosen[name]
                for name in (
                    "step",
                    "rule",
                    "reason",
                    "review",
                    "features",
                    "thresholds",
                )
            },
            "choices": chosen["choices"],
            "rejected": chosen["rejected"],
            "attempts": [self._told(attempt) for attempt in self.used],
            "shadow": [self._told(attempt) for attempt in self.shadow],
            "outcome": outcome
            and {
                n: getattr(outcome, n) for n in ("status", "model", "value", "reason")
            },
        }

    def _told(self, attempt: Attempt) -> dict[str, Any]:
        return {
            **asdict(attempt),
            "text": self.answers.get(attempt.id),
            "words": self.words.get(attempt.id, ()),
        }


# ---- what happened ------------------------------------------------------------------------------


def explain(
    ledger: Ledger, run: RunRow, document: str, step: str | None = None
) -> list[Explanation]:
    """What happened to one document in a run, by step. `document` is its id, or a part that only it has.

    Raises UnknownName for a document or step that the run does not know, Misuse for an unclear document.
    """
    document_id = _document(ledger, run, document)
    outcomes = [
        row.outcome
        for row in sorted(
            ledger.runs.outcomes(run.id, document_id), key=lambda row: row.recorded_at
        )
    ]
    if step is not None and step not in (
        names := [outcome.step for outcome in outcomes]
    ):
        raise UnknownName(f"step of {document_id} in run {run.id}", step, names)
    earlier: dict[str, Any] = {}
    found = []
    for outcome in outcomes:
        if step in (None, outcome.step):
            attempts = tuple(ledger.runs.attempts(run.id, document_id, outcome.step))
            found.append(
                _explained(
                    ledger,
                    run,
                    document_id,
                    replace(outcome, attempts=attempts),
                    dict(earlier),
                )
            )
        if outcome.status == "accepted":
            earlier[outcome.step] = outcome.value
    return found


def _document(ledger: Ledger, run: RunRow, name: str) -> str:
    known = list(dict.fromkeys(row.document_id for row in ledger.runs.outcomes(run.id)))
    found = [document_id for document_id in known if name in document_id]
    if name in known or len(found) == 1:
        return name if name in known else found[0]
    if not found:
        raise UnknownName(f"document in run {run.id}", name, known[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise Misuse(
        f"'{name}' fits several documents: {', '.join(found[:_SHOWN])}{more}; give more of the id"
    )


def _explained(
    ledger: Ledger,
    run: RunRow,
    document_id: str,
    outcome: Outcome,
    earlier: Mapping[str, Any],
) -> Explanation:
    chosen = outcome.route or Route(step=outcome.step, rule="none", models=())
    replies = {
        attempt.id: ledger.runs.reply(attempt.call_hash)
        for attempt in outcome.attempts
        if not attempt.error
    }
    return Explanation(
        document_id=document_id,
        route=chosen,
        policy_hash=outcome.attempts[0].policy_hash
        if outcome.attempts
        else run.policy_hash,
        guards=tuple(
            dict.fromkeys(r.detail for r in chosen.rejected if r.kind == "guard")
        ),
        earlier=earlier,
        run=run,
        outcome=outcome,
        answers={name: reply.text for name, reply in replies.items() if reply},
    )


def with_words(project: Project, found: Explanation) -> Explanation:
    """The same with the words that decided, for answers of trained classifiers whose document can be read again."""
    learned = [
        a
        for a in (*found.used, *found.shadow)
        if _is_learned(project, a.model) and not a.error
    ]
    text = _text(project, found, learned[0].document_hash) if learned else None
    if text is None:
        return found
    words = {}
    for attempt in learned:
        try:
            words[attempt.id] = load(trained_file(project.root, attempt.model)).explain(
                text
            )
        except TierwiseError:  # not trained any more, or by another version
            continue
    return replace(found, words=words)


def _is_learned(project: Project, name: str) -> bool:
    model = project.catalog.models.get(name)
    return model is not None and model.learned is not None


def _text(project: Project, found: Explanation, document_hash: str) -> str | None:
    """The document's text as it was, where its file still lies below the run's source."""
    source = (
        project.root / str(found.run.parameters.get("source", ""))
        if found.run
        else project.root
    )
    path = source if source.is_file() else source / found.document_id.partition("#")[0]
    if not path.is_file():
        return None
    documents = (
        document
        for batch in read_documents(path, sensitivity="restricted")
        for document in batch.load()
    )
    return next(
        (document.text for document in documents if document.hash == document_hash),
        None,
    )


# ---- what would be done now ---------------------------------------------------------------------


def decide(
    engine: Engine, f: Features, *, budget_left: Decimal | None = None
) -> Explanation:
    """What the router would do now with such a document, with what is available here.

    The prompt is counted with a document of `f.tokens` tokens in it, with the parameters of the golden set.
    Raises UnknownName for a step without a prompt.
    """
    policy = engine.policy
    (step, parameters) = step_of(engine.project, f.step)
    prompt = next((p for p in engine.prompts if p.head.step == f.step), None)
    if prompt is None:
        raise UnknownName("step", f.step, (p.head.step for p in engine.prompts))
    document = Document(
        id="",
        text="",
        language=f.language,
        metadata=f.tags,
        outcomes={
            name: Outcome(step=name, status="accepted", value=value)
            for name, value in f.outcomes.items()
        },
    )
    try:
        frame = estimate_prompt_tokens(
            prompt.render(document, {"part": None, **parameters})
        )
    except ConfigError:
        # it needs what only a flow knows; its template is about as long
        frame = count_tokens(prompt.source)
    f = replace(f, prompt_tokens=f.tokens + frame)
    limit = prompt.head.max_output_tokens
    current = engine.current(step, parameters) if step else None
    chosen = route(
        f,
        policy,
        max_output_tokens=limit,
        splits=bool(step and step.splits),
        budget_left=budget_left,
        current=current,
    )
    shown = {
        part.name: getattr(f, part.name)
        for part in fields(f)
        if part.name not in ("step", "outcomes")
    }
    return Explanation(
        document_id="",
        route=replace(
            chosen,
            choices=choices(
                chosen, f, policy, max_output_tokens=limit, current=current
            ),
            features={
                **shown,
                "max_output_tokens": limit,
                "budget_left": budget_left and str(budget_left),
            },
        ),
        policy_hash=policy.hash,
        guards=tuple(
            guard.name for guard in policy.rules.guards if guard.when.matches(f)
        ),
        earlier=f.outcomes,
    )


def step_of(project: Project, name: str) -> tuple[Step | None, Mapping[str, Any]]:
    """The step in tasks/ as its golden set is for, None where it lives elsewhere; and that set's parameters."""
    try:
        step = project.load_step(name)
    except UnknownName:
        return None, {}
    settings = load_settings(project.root / "golden" / f"{step.name}.yaml")
    if settings.returns:
        # `tierwise certify` tells
        with suppress(ImportError, AttributeError, ValueError):
            step = replace(step, returns=resolve_name(settings.returns))
    return step, settings.parameters
