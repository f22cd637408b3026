"""An explanation as lines of at most 80 columns, in the order of the decision."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tierwise.cli.render.lines import WIDTH, aligned, cost_text, one_line
from tierwise.policy.by_field import words_of
from tierwise.text.amounts import duration, plural, total

if TYPE_CHECKING:
    from tierwise.explain.decisions import Explanation
    from tierwise.policy.by_field import KeptFields
    from tierwise.records import Attempt, Choice, Outcome, Verdict

_MOST_NAMED = 10
KINDS = {
    "first": "first call",
    "retry": "retry, after a passing fault",
    "fallback": "fallback, after a provider's fault",
    "escalation": "escalation, after a failed check",
    "repair": "repair, with the fault shown",
    "reask": "re-asked, with the failed check shown",
    "judge": "call as a judge",
    "shadow": "shadow call; it changed nothing",
}


def explanation_lines(
    explanation: Explanation, hosts: Mapping[str, str]
) -> Iterator[str]:
    """Yield the document, the rules, the candidates, the calls and the outcome.

    `hosts` are those of the models now.
    """
    yield from _head(explanation)
    yield ""
    yield from aligned(_decision_rows(explanation))
    yield from _candidates(explanation)
    yield from _hosts(explanation, hosts)
    yield from _rejected(explanation)
    # Decided now: nothing has happened yet.
    if explanation.outcome is None:
        return
    if explanation.used:
        yield from ("", "What happened")
        yield from _attempts(explanation, explanation.used)
    yield ""
    rows = [("Outcome", _outcome_text(explanation)), *_field_rows(explanation)]
    yield from aligned(rows)
    if explanation.shadow:
        yield from ("", "Shadow calls, for comparison; they changed nothing")
        yield from _attempts(explanation, explanation.shadow)


def _head(explanation: Explanation) -> Iterator[str]:
    """Yield the subject, and the answer in one sentence."""
    step = explanation.route.step
    models = explanation.route.models
    run = explanation.run
    outcome = explanation.outcome
    if run is None or outcome is None:
        yield f"{step}, decided now, with what is available here"
        if models:
            yield f"{models[0]} would be asked first."
        else:
            yield f"It would be deferred: {explanation.route.reason}."
        return
    yield f"{step} of {explanation.document_id}, as it was in run {run.id} ({run.flow})"
    source = ""
    if outcome.open_fields:
        source = f" with {', '.join(outcome.open_fields)} open"
    elif len(outcome.fields_by_source) > 1:
        source = f" from {' and '.join(_models_of(outcome))}"
    elif outcome.model:
        source = f" from {outcome.model}"
    calls = plural(len(explanation.used), "call")
    cost = cost_text(total(attempt.cost for attempt in explanation.used))
    yield f"{outcome.status.capitalize()}{source}, {calls}, {cost}."


def _decision_rows(explanation: Explanation) -> list[tuple[str, str]]:
    """Return what was known of the document, and which rules applied."""
    route = explanation.route
    features = route.features
    rows = []
    # A route of an older version may have no features on record.
    if features:
        rows.append(("Document", _document_text(features)))
    if explanation.members:
        rows.append(("Group of", _named(explanation.members)))
    if explanation.groups:
        rows.append(("Member of", _named(explanation.groups)))
    tags = features.get("tags")
    if tags:
        pairs = [f"{name}={value}" for name, value in tags.items()]
        rows.append(("Tags", ", ".join(pairs)))
    for number, (step, value) in enumerate(explanation.earlier.items()):
        # One label for the whole list of earlier outcomes.
        label = "" if number else "Before"
        rows.append((label, f"{step}: {one_line(value, 100)}"))
    budget = _budget_text(features)
    if budget:
        rows.append(("Budget", budget))
    rows.append(("Guards", _guards_text(explanation)))
    rule = route.rule
    if route.reason:
        rule += f": {route.reason}"
    rows.append(("Route", rule))
    for number, (model, (transport, reason)) in enumerate(route.transports.items()):
        label = "" if number else "Transport"
        name = f"{model}: " if len(route.transports) > 1 else ""
        how = "in a batch" if transport == "batch" else "online"
        rows.append((label, f"{name}{how}: {reason}"))
    if route.review:
        rows.append(("Review", "a person reviews the answer before it counts"))
    policy = f"{explanation.policy_hash[:12]} (rules, catalog, certificates)"
    rows.append(("Policy", policy))
    return rows


def _named(ids: Sequence[str]) -> str:
    """Return the first ids, and how many others there are."""
    text = ", ".join(one_line(each, 60) for each in ids[:_MOST_NAMED])
    others = len(ids) - _MOST_NAMED
    return f"{text} and {others} more" if others > 0 else text


def _document_text(features: Mapping[str, Any]) -> str:
    parts = [
        f"{features['tokens']:,} tokens, {features['prompt_tokens']:,} with the prompt",
        features["sensitivity"],
        f"language {features['language'] or 'unknown'}",
        f"{features['stakes']} stakes",
    ]
    return "; ".join(parts)


def _budget_text(features: Mapping[str, Any]) -> str:
    parts = []
    left = features.get("budget_left")
    if left is not None:
        parts.append(f"{Decimal(left):.6f} USD left")
    if features.get("budget_used"):
        parts.append(f"{features['budget_used']:.0%} used")
    minutes = features.get("minutes_left")
    if minutes is not None:
        parts.append(f"{minutes:.0f} minutes left")
    return ", ".join(parts)


def _guards_text(explanation: Explanation) -> str:
    if explanation.guards:
        return ", ".join(explanation.guards)
    # The ledger has the guards that rejected a candidate, not all that applied.
    if explanation.run is None:
        return "none applies"
    return "none kept a candidate out"


def _candidates(explanation: Explanation) -> Iterator[str]:
    route = explanation.route
    if not route.models:
        return
    yield from ("", "Asked in this order, the next one when a check fails")
    choices = {choice.model: choice for choice in route.choices}
    rows = [
        (
            f"{number}. {name}",
            _candidate_text(
                choices.get(name), route.thresholds.get(name), route.keeps.get(name)
            ),
        )
        for number, name in enumerate(route.models, 1)
    ]
    yield from aligned(rows, indent="  ")


def _hosts(explanation: Explanation, hosts: Mapping[str, str]) -> Iterator[str]:
    if not hosts:
        return
    heading = "Calls go to"
    if explanation.run is not None:
        # The ledger has no addresses, so this is no statement about the run.
        heading = "Calls go to, with the catalog and variables of now"
    yield from ("", heading)
    yield from aligned(list(hosts.items()), indent="  ")


def _candidate_text(
    choice: Choice | None,
    min_confidence: float | None,
    kept: KeptFields | None,
) -> str:
    parts = ["its expected cost is not on record"]
    if choice:
        parts = [cost_text(choice.expected_cost, "about ")]
    if min_confidence is not None:
        parts.append(f"its answer counts from a confidence of {min_confidence:.2f}")
    if kept is not None:
        parts.append(f"of its answer are kept: {words_of(kept)}")
    if choice and choice.proof:
        parts.append(choice.proof)
    return "; ".join(parts)


def _rejected(explanation: Explanation) -> Iterator[str]:
    """Yield the rejected models, grouped by the reason."""
    # Most models are left out for the same reason, which is then printed once.
    models_by_reason: dict[str, list[str]] = {}
    for rejection in explanation.route.rejected:
        models_by_reason.setdefault(rejection.reason, []).append(rejection.model)
    if models_by_reason:
        yield from ("", "Left out")
    for reason, models in models_by_reason.items():
        yield from _indented(", ".join(models), "  ")
        yield from _indented(reason, "    ")


def _indented(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _attempts(explanation: Explanation, attempts: Sequence[Attempt]) -> Iterator[str]:
    rows: list[tuple[str, str]] = []
    for number, attempt in enumerate(attempts, 1):
        label = f"{number}. {attempt.model}"
        kind = KINDS[attempt.kind]
        rows.append((label, f"{kind}: {_result(attempt)}"))
        # Details go below the call, without a label of their own.
        rows += [("", detail) for detail in _attempt_details(explanation, attempt)]
    yield from aligned(rows, indent="  ")


def _attempt_details(explanation: Explanation, attempt: Attempt) -> Iterator[str]:
    """Yield what a model said, the verdicts on it, and the words that decided."""
    outcome = explanation.outcome
    # The last call in use is the one whose answer counts.
    accepted = (
        outcome is not None
        and outcome.status == "accepted"
        and attempt is explanation.used[-1]
    )
    if attempt.usage and attempt.usage.unclear and not attempt.reused:
        unclear = attempt.usage.unclear
        yield f"usage unclear: {unclear}; counted the largest reading"
    said = explanation.answers.get(attempt.id)
    if said is not None and not accepted:  # the outcome shows an accepted answer
        yield f"said {one_line(said)}"
    for verdict in attempt.verdicts:
        if verdict.passed is not True:
            yield _verdict_text(verdict)
    passed = [verdict.check for verdict in attempt.verdicts if verdict.passed]
    if passed:
        yield f"passed {', '.join(passed)}"
    words = explanation.words.get(attempt.id)
    if words:
        weighted = ", ".join(
            f"{_in_quotes(word)} {weight:+.2f}" for word, weight in words
        )
        yield f"words that decided: {weighted}"


def _in_quotes(words: str) -> str:
    """Return one word as it is, and several in quotes."""
    several = words.split()
    return words if len(several) < 2 else f"'{' '.join(several)}'"


def _result(attempt: Attempt) -> str:
    if attempt.reused:
        return "an answer paid for before, reused"
    if attempt.error:
        # The row begins with the model's name already.
        text = (attempt.error_text or "").removeprefix(f"{attempt.model}: ")
        return f"{attempt.error}: {text} ({_cost(attempt)})"
    text = f"answered in {attempt.latency_s:.2f} s, {_cost(attempt)}"
    if attempt.transport == "batch":
        took = duration(attempt.latency_s)
        text = f"answered in a provider batch after {took}, {_cost(attempt)}"
    if attempt.confidence is not None:
        text += f", confidence {attempt.confidence:.2f}"
    return text


def _verdict_text(verdict: Verdict) -> str:
    # None: the check could not be carried out, such as a judge that failed.
    word = "unscored" if verdict.passed is None else "failed"
    return f"{word} {verdict.check}: {verdict.reason}"


def _outcome_text(explanation: Explanation) -> str:
    outcome = explanation.outcome
    if outcome is None:
        return ""
    if outcome.status == "accepted":
        models = ", ".join(_models_of(outcome)) or outcome.model
        return f"accepted from {models}: {one_line(outcome.value)}"
    # A deferral for review has an answer as well, which is waiting for a person.
    text = f"{outcome.status}: {outcome.reason}"
    if outcome.open_fields:
        return text  # the fields that are kept have rows of their own
    if outcome.value is not None:
        text += f" (answer of {outcome.model}: {one_line(outcome.value)})"
    return text


def _models_of(outcome: Outcome) -> list[str]:
    """Return the models and reviewers that fields are from, each once."""
    return list(dict.fromkeys(source.model for source in outcome.sources.values()))


def _field_rows(explanation: Explanation) -> list[tuple[str, str]]:
    """Return which model gave which field, and which fields are open, in a step by field."""
    outcome = explanation.outcome
    if outcome is None:
        return []
    rows: list[tuple[str, str]] = []
    for name, source in outcome.sources.items():
        text = f"{name} from {source.model}"
        if source.confidence is not None:
            text += f", confidence {source.confidence:.2f}"
        rows.append(("" if rows else "Fields", text))
    if outcome.open_fields:
        rows.append(("Open", ", ".join(outcome.open_fields)))
    return rows


def _cost(attempt: Attempt) -> str:
    """Return an attempt's cost in words, and whether it was filled in later."""
    repriced = ", repriced" if attempt.repriced else ""
    return f"{cost_text(attempt.cost)}{repriced}"
