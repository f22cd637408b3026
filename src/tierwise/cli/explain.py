"""`tierwise explain`: why this model, from the ledger; or what the router would do now."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.output import print_json
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from tierwise.explain.decisions import Explanation
    from tierwise.project import Project
    from tierwise.records import Attempt, Verdict

WIDTH = 80
KINDS = {
    "first": "asked first",
    "retry": "asked again, after a passing fault",
    "fallback": "asked next, after a fault",
    "escalation": "asked next, after a failed check",
    "repair": "asked again, shown what was wrong",
    "judge": "asked as a judge",
    "shadow": "asked too, to see how it does; nothing changed by it",
}
Pairs = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE")]


def explain(
    document: Annotated[
        str | None,
        typer.Argument(metavar="DOCUMENT", help="A document's id, or a part that only it has."),
    ] = None,
    only: Annotated[
        str | None, typer.Argument(metavar="STEP", help="Only this step of it.")
    ] = None,
    run: Annotated[
        str, typer.Option(help="A run's id, the beginning of one, or `latest`.")
    ] = "latest",
    step: Annotated[
        str | None, typer.Option(help="Without a document: the step to decide about now.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=0, help="Tokens of the document's text.")] = 500,
    sensitivity: Annotated[
        str, typer.Option(help="public, internal, confidential or restricted.")
    ] = "restricted",
    language: Annotated[str | None, typer.Option(help="Such as de.")] = None,
    stakes: Annotated[str, typer.Option(help="low, normal or high.")] = "normal",
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP.FIELD=VALUE", help="Of an earlier step; may be repeated."),
    ] = None,
    budget_left: Annotated[
        str | None, typer.Option(metavar="USD", help="What is left of the budget.")
    ] = None,
    budget_used: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the budget that is used.")
    ] = 0.0,
    minutes_left: Annotated[float | None, typer.Option(min=0, help="Until the deadline.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain why a document went to a model.

    Everything comes from the ledger: it is what happened in that run, not what would happen now. It goes in the
    order of the decision: what was known of the document, which guards and which route applied, which models were
    to be asked and which were left out and why; then each call with its cost and its checks, and the outcome.

    Without a document, it says what the router would do now, here, with a document that you describe:
    `tierwise explain --step classify --tokens 500 --sensitivity confidential`. Nothing is called.
    """
    from tierwise.project import Project

    project = Project.find()
    if (document is None) == (step is None):
        raise Misuse(
            "name a document, such as `tierwise explain mail-07`, or describe one with --step and the rest"
        )
    if step is None:
        found = _past(project, run, str(document), only)
    else:
        features = {
            "tokens": tokens,
            "sensitivity": sensitivity,
            "language": language,
            "stakes": stakes,
            "tags": dict(_pair(text, "--tag") for text in tag or ()),
            "outcomes": _outcomes(outcome or ()),
            "budget_used": budget_used,
            "minutes_left": minutes_left,
        }
        found = [_now(project, step, features, budget_left)]
    if as_json:
        print_json([explanation.data() for explanation in found])
        return
    for number, explanation in enumerate(found):
        for line in (*([""] * (number > 0)), *lines(explanation)):
            typer.echo(line)


def _past(project: Project, run: str, document: str, only: str | None) -> list[Explanation]:
    from tierwise.explain.decisions import explain as explained
    from tierwise.explain.decisions import with_words
    from tierwise.ledger import Ledger

    with Ledger.open(project.ledger_url, root=project.root) as ledger:
        found = explained(ledger, ledger.resolve_run(run), document, only)
    return [with_words(project, explanation) for explanation in found]


def _now(
    project: Project, step: str, features: dict[str, Any], budget_left: str | None
) -> Explanation:
    from pydantic import TypeAdapter, ValidationError

    from tierwise.engine import Engine
    from tierwise.explain.decisions import decide
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.policy.rules import Features

    prepare_prefect(project.root)
    try:
        left = None if budget_left is None else Decimal(budget_left)
        f = TypeAdapter(Features).validate_python({"step": step, **features})
    except InvalidOperation:
        raise Misuse(
            f"--budget-left takes an amount of USD, such as 0.10; not '{budget_left}'"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise Misuse(f"--{name}: {first['msg']}; not '{first['input']}'") from None
    with Engine(project, project.env_with_secrets(os.environ)) as engine:
        return decide(engine, f, budget_left=left)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name):
        raise Misuse(f"{option} takes NAME=VALUE, not '{text}'")
    return name, value


def _outcomes(texts: Sequence[str]) -> dict[str, Any]:
    """`classify.label=billing` as the outcome `{"classify": {"label": "billing"}}`."""
    found: dict[str, Any] = {}
    for text in texts:
        path, value = _pair(text, "--outcome")
        step, dot, name = path.partition(".")
        if not (step and dot and name):
            raise Misuse(
                f"--outcome takes STEP.FIELD=VALUE, such as classify.label=billing; not '{text}'"
            )
        found.setdefault(step, {})[name] = value
    return found


# ---- as text ------------------------------------------------------------------------------------


def lines(found: Explanation) -> Iterator[str]:
    """An explanation as lines of at most 80 columns."""
    yield from _head(found)
    yield ""
    yield from aligned(_known(found))
    yield from _choices(found)
    yield from _left_out(found)
    if found.outcome:
        if found.used:
            yield from ("", "What happened")
            yield from _attempts(found, found.used)
        yield ""
        yield from aligned([("Outcome", _outcome(found))])
        if found.shadow:
            yield from ("", "Asked as well, for an audit; nothing changed by it")
            yield from _attempts(found, found.shadow)


def aligned(rows: Sequence[tuple[str, str]], *, indent: str = "") -> Iterator[str]:
    """Labels in one column, texts wrapped beside them."""
    wide = max((len(label) for label, _ in rows), default=0)
    for label, text in rows:
        head = f"{indent}{label:<{wide}}  "
        yield from textwrap.wrap(
            text or "-",
            WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_on_hyphens=False,
        )


def short(value: Any, most: int = 200) -> str:
    """An output in one line."""
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _head(found: Explanation) -> Iterator[str]:
    """What it is about, and the answer in one sentence."""
    step = found.route.step
    models = found.route.models
    if found.run is None or found.outcome is None:
        yield f"{step}, decided now, with what is available here"
        yield (
            f"{models[0]} would be asked first."
            if models
            else f"It would be deferred: {found.route.reason}."
        )
        return
    yield f"{step} of {found.document_id}, as it was in run {found.run.id} ({found.run.flow})"
    calls = f"{len(found.used)} call{'' if len(found.used) == 1 else 's'}"
    whose = f" from {found.outcome.model}" if found.outcome.model else ""
    yield f"{found.outcome.status.capitalize()}{whose}, {calls}, {_cost(_sum(found.used))}."


def _sum(attempts: Sequence[Attempt]) -> Decimal | None:
    costs = [attempt.cost for attempt in attempts]
    return None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0))


def _known(found: Explanation) -> list[tuple[str, str]]:
    features = found.route.features
    chosen = found.route
    rows = [("Document", _document(features))] if features else []
    if tags := features.get("tags"):
        rows.append(("Tags", ", ".join(f"{name}={value}" for name, value in tags.items())))
    steps = [f"{step}: {short(value, 100)}" for step, value in found.earlier.items()]
    rows += [("" if n else "Before", text) for n, text in enumerate(steps)]
    if budget := _budget(features):
        rows.append(("Budget", budget))
    held = ", ".join(found.guards)
    none = "none applies" if found.run is None else "none kept a candidate out"
    rows.append(("Guards", held or none))
    rows.append(("Route", f"{chosen.rule}: {chosen.reason}" if chosen.reason else chosen.rule))
    if chosen.review:
        rows.append(("Review", "a person looks at the answer before it counts"))
    rows.append(("Policy", f"{found.policy_hash[:12]} (rules, catalog, certificates)"))
    return rows


def _document(features: Mapping[str, Any]) -> str:
    parts = [
        f"{features['tokens']:,} tokens, {features['prompt_tokens']:,} with the prompt",
        features["sensitivity"],
        f"language {features['language'] or 'unknown'}",
        f"{features['stakes']} stakes",
    ]
    return "; ".join(parts)


def _budget(features: Mapping[str, Any]) -> str:
    parts = []
    if (left := features.get("budget_left")) is not None:
        parts.append(f"{Decimal(left):.6f} USD left")
    if features.get("budget_used"):
        parts.append(f"{features['budget_used']:.0%} used")
    if (minutes := features.get("minutes_left")) is not None:
        parts.append(f"{minutes:.0f} minutes left")
    return ", ".join(parts)


def _choices(found: Explanation) -> Iterator[str]:
    chosen = found.route
    if not chosen.models:
        return
    yield from ("", "To be asked in this order, the next one when an answer does not hold")
    choices = {choice.model: choice for choice in chosen.choices}
    rows = []
    for number, name in enumerate(chosen.models, 1):
        choice = choices.get(name)
        parts = (
            [_cost(choice.expected_cost, "about ")]
            if choice
            else ["what it should cost is not on record"]
        )
        if (sure := chosen.thresholds.get(name)) is not None:
            parts.append(f"its answer counts where it is at least {sure:.2f} sure")
        if choice and choice.proof:
            parts.append(choice.proof)
        rows.append((f"{number}. {name}", "; ".join(parts)))
    yield from aligned(rows, indent="  ")


def _left_out(found: Explanation) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for rejection in found.route.rejected:
        reasons.setdefault(rejection.reason, []).append(rejection.model)
    if reasons:
        yield from ("", "Left out")
    for reason, models in reasons.items():
        yield from textwrap.wrap(
            ", ".join(models), WIDTH, initial_indent="  ", subsequent_indent="  "
        )
        yield from textwrap.wrap(
            reason, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
        )


def _attempts(found: Explanation, attempts: Sequence[Attempt]) -> Iterator[str]:
    rows: list[tuple[str, str]] = []
    for number, attempt in enumerate(attempts, 1):
        rows.append((f"{number}. {attempt.model}", f"{KINDS[attempt.kind]}: {_came(attempt)}"))
        accepted = (
            found.outcome is not None
            and attempt is found.used[-1]
            and found.outcome.status == "accepted"
        )
        if (said := found.answers.get(attempt.id)) is not None and not accepted:
            rows.append(("", f"said {short(said)}"))
        rows += [
            ("", _verdict(verdict)) for verdict in attempt.verdicts if verdict.passed is not True
        ]
        if passed := [verdict.check for verdict in attempt.verdicts if verdict.passed]:
            rows.append(("", f"passed {', '.join(passed)}"))
        if words := found.words.get(attempt.id):
            rows.append(
                (
                    "",
                    "words that decided: "
                    + ", ".join(f"{word} {weight:+.2f}" for word, weight in words),
                )
            )
    yield from aligned(rows, indent="  ")


def _came(attempt: Attempt) -> str:
    if attempt.reused:
        return "an answer paid before, used again"
    if attempt.error:
        told = f"{attempt.error}: {(attempt.error_text or '').removeprefix(f'{attempt.model}: ')}"
        return f"{told} ({_cost(attempt.cost)})"
    sure = "" if attempt.confidence is None else f", confidence {attempt.confidence:.2f}"
    return f"answered in {attempt.latency_s:.2f} s, {_cost(attempt.cost)}{sure}"


def _verdict(verdict: Verdict) -> str:
    word = "unscored" if verdict.passed is None else "failed"
    return f"{word} {verdict.check}: {verdict.reason}"


def _outcome(found: Explanation) -> str:
    outcome = found.outcome
    if outcome is None:
        return ""
    if outcome.status == "accepted":
        return f"accepted from {outcome.model}: {short(outcome.value)}"
    held = (
        f" (answer of {outcome.model}: {short(outcome.value)})" if outcome.value is not None else ""
    )
    return f"{outcome.status}: {outcome.reason}{held}"


def _cost(cost: Decimal | None, about: str = "") -> str:
    from tierwise.text.amounts import usd

    return "cost unknown" if cost is None else "free" if cost == 0 else f"{about}{usd(cost)}"
