"""A trial of a prompt as lines of at most 80 columns, and as data."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from tierwise.cli.render.lines import WIDTH, aligned, cost_text, one_line
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.cli.trial import ModelTrial, Trial
    from tierwise.records import Message, Verdict

_MOST_IN_A_ROW = 3  # models side by side
_LABEL_WIDTH = 10
_GAP = "  "
_LONGEST_MESSAGE = 4000  # characters that are printed without --full
_LONGEST_CELL = 600
_RESTRICTED = (
    "a file counts as restricted unless --sensitivity says otherwise, and guards keep it from "
    "models that may not see such documents"
)


def trial_lines(trial: Trial, *, full: bool = False) -> Iterator[str]:
    """Yield the document, the prompt, and the answers side by side."""
    yield from aligned(_head_rows(trial))
    for message in trial.messages:
        yield ""
        yield f"── {message.role}"
        yield from _message_lines(message, full=full)
    if trial.unroutable:
        yield ""
        yield from aligned([("No model", trial.unroutable)])
    for start in range(0, len(trial.models), _MOST_IN_A_ROW):
        yield ""
        yield from _side_by_side(trial, trial.models[start : start + _MOST_IN_A_ROW])
    if trial.models and trial.expected is not None:
        yield from aligned([("expected", one_line(dict(trial.expected), 300))])
    if _restricted_by_default(trial):
        yield ""
        yield from aligned([("Note", _RESTRICTED)])
    yield ""
    yield f"Run {trial.run_id}: `tierwise show {trial.run_id}`"


def _restricted_by_default(trial: Trial) -> bool:
    """Return True if a model was left out for a document that no one gave a sensitivity."""
    by_default = (
        # A golden row has a sensitivity of its own, and so may a file: only `flow` is our default.
        trial.expected is None
        and trial.document.sensitivity == "restricted"
        and trial.document.sensitivity_source == "flow"
    )
    refused = any(model.refused for model in trial.models)
    return by_default and (refused or bool(trial.unroutable))


def _head_rows(trial: Trial) -> list[tuple[str, str]]:
    document = trial.document
    language = document.language or "unknown"
    parameters = one_line(dict(trial.step.parameters), 200)
    if trial.step.origin:
        parameters += f" ({trial.step.origin})"
    return [
        ("Step", f"{trial.step.step.name}, prompt {trial.prompt}"),
        (
            "Document",
            f"{document.id}; {document.strictest}; language {language}; "
            f"{trial.tokens:,} tokens with the prompt",
        ),
        ("Parameters", parameters),
    ]


def _message_lines(message: Message, *, full: bool) -> Iterator[str]:
    text = message.content
    left_out = len(text) - _LONGEST_MESSAGE
    if left_out > 0 and not full:
        # Both ends: the instructions are at the start, the question is often at the end.
        half = _LONGEST_MESSAGE // 2
        note = f"[… {left_out:,} characters; --full prints them …]"
        text = f"{text[:half]}\n{note}\n{text[-half:]}"
    for line in text.splitlines():
        wrapped = textwrap.wrap(
            line, WIDTH, drop_whitespace=False, break_on_hyphens=False
        )
        # an empty line is one, too
        for part in wrapped or [""]:
            yield part.rstrip()


def _side_by_side(trial: Trial, models: Sequence[ModelTrial]) -> Iterator[str]:
    """Yield one table: some of the trial's models, as many as fit beside each other."""
    # Characters of one column: what the label leaves, shared, less the gap before the next.
    width = (WIDTH - _LABEL_WIDTH) // len(models) - len(_GAP)
    yield from _row("", [model.model for model in models], width)
    yield from _row("", ["─" * min(width, 24) for _ in models], width)
    rows = [
        ("tier", [model.tier for model in models]),
        ("asked", [_asked_text(trial, model) for model in models]),
        *_answer_rows(models),
        ("checks", [_checks_text(model) for model in models]),
    ]
    if trial.expected is not None:
        rows.append(("right", [_right_text(model) for model in models]))
    rows += [
        ("calls", [_calls_text(model) for model in models]),
        ("cost", [_cost(model) for model in models]),
        ("latency", [_latency(model) for model in models]),
        ("tokens", [_tokens_text(model) for model in models]),
    ]
    for label, cells in rows:
        if any(cells):
            yield from _row(label, cells, width)


def _row(label: str, cells: Sequence[str], width: int) -> Iterator[str]:
    wrapped = [
        textwrap.wrap(cell, width, break_on_hyphens=False) or [""] for cell in cells
    ]
    for number, parts in enumerate(zip_longest(*wrapped, fillvalue="")):
        head = label if number == 0 else ""
        columns = _GAP.join(f"{part:<{width}}" for part in parts)
        yield f"{head:<{_LABEL_WIDTH}}{columns}".rstrip()


def _asked_text(trial: Trial, model: ModelTrial) -> str:
    """Say whether the model was asked, and what its prompt has besides the one that is shown."""
    if model.refused:
        return f"not asked: {model.refused}"
    if model.messages == trial.messages:
        return "with the prompt above"
    # Few-shot examples come in pairs: a question and its answer.
    more = len(model.messages) - len(trial.messages)
    if more > 0:
        return f"with {plural(more // 2, 'example')} before the question"
    if more < 0:
        return "with the document's text alone"
    return "with the schema added"


def _answer_rows(models: Sequence[ModelTrial]) -> Iterator[tuple[str, list[str]]]:
    """Yield a row for each field of the answers, and one for those that cannot be read."""
    # A dict as a set that keeps the order of the fields.
    fields: dict[str, None] = {}
    for model in models:
        fields.update(dict.fromkeys(model.answer or ()))
    for field in fields:
        cells = []
        for model in models:
            answer = model.answer or {}
            value = answer.get(field)
            cells.append(one_line(value, _LONGEST_CELL) if field in answer else "")
        yield field, cells
    unreadable = [_unreadable_text(model) for model in models]
    yield "answer", unreadable


def _unreadable_text(model: ModelTrial) -> str:
    if model.outcome is None or model.answer is not None:
        return ""
    text = model.attempts[-1].text
    if text is None:
        return one_line(model.outcome.reason, _LONGEST_CELL)
    return one_line(text, _LONGEST_CELL)


def _checks_text(model: ModelTrial) -> str:
    failed = [verdict for verdict in model.verdicts if verdict.passed is False]
    if failed:
        return "; ".join(f"{verdict.check}: {verdict.reason}" for verdict in failed)
    if not model.verdicts:
        return "none" if model.answer is not None else ""
    return f"passed: {', '.join(_names(model.verdicts))}"


def _names(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for verdict in verdicts:
        yield verdict.check


def _right_text(model: ModelTrial) -> str:
    if model.outcome is None or model.right is None:
        return ""
    return "yes" if model.right else "no"


def _calls_text(model: ModelTrial) -> str:
    calls = []
    for attempt in model.attempts:
        text: str = attempt.kind
        if attempt.reused:
            text += " (paid before)"
        if attempt.error:
            text += f" ({attempt.error})"
        calls.append(text)
    return ", ".join(calls)


def _cost(model: ModelTrial) -> str:
    return cost_text(model.cost) if model.attempts else ""


def _latency(model: ModelTrial) -> str:
    return f"{model.latency_s:.2f} s" if model.attempts else ""


def _tokens_text(model: ModelTrial) -> str:
    """Return the tokens of all calls, as the servers reported them."""
    usages = [attempt.usage for attempt in model.attempts]
    known = [usage for usage in usages if usage]
    if not usages:
        return ""
    # A sum of some calls only would look like the whole.
    if len(known) < len(usages):
        return "unknown"
    prompt = sum(usage.prompt_tokens for usage in known)
    answer = sum(usage.completion_tokens for usage in known)
    return f"{prompt:,} in, {answer:,} out"


# ---- data ---------------------------------------------------------------------------------------


def trial_data(trial: Trial) -> dict[str, Any]:
    """Return everything as plain data, for scripts."""
    return {
        "run": trial.run_id,
        "step": trial.step.step.name,
        "prompt": trial.prompt,
        "messages": _messages_data(trial.messages),
        "prompt_tokens": trial.tokens,
        "parameters": dict(trial.step.parameters),
        "parameters_from": trial.step.origin,
        "document": {
            "id": trial.document.id,
            "sensitivity": trial.document.strictest,
            "language": trial.document.language,
        },
        "expected": trial.expected,
        "unroutable": trial.unroutable,
        "models": [_model_data(trial, model) for model in trial.models],
    }


def _messages_data(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _model_data(trial: Trial, model: ModelTrial) -> dict[str, Any]:
    outcome = model.outcome
    attempts = [
        {
            "kind": attempt.kind,
            "text": attempt.text,
            "error": attempt.error,
            "reused": attempt.reused,
            "cost": attempt.cost,
            "latency_s": attempt.latency_s,
            "usage": asdict(attempt.usage) if attempt.usage else None,
            "confidence": attempt.confidence,
        }
        for attempt in model.attempts
    ]
    # Repeated only where they differ: a prompt may be long.
    same = model.messages == trial.messages
    return {
        "model": model.model,
        "tier": model.tier,
        "asked": not model.refused,
        "reason": model.refused or (outcome.reason if outcome else ""),
        "status": outcome.status if outcome else None,
        "answer": model.answer,
        "checks": [asdict(verdict) for verdict in model.verdicts],
        "right": model.right,
        "cost": model.cost if model.attempts else None,
        "latency_s": model.latency_s if model.attempts else None,
        "messages": None if same else _messages_data(model.messages),
        "attempts": attempts,
    }
