"""`tierwise certify`: models measured on a step's golden set, and the certificates that follow."""

from __future__ import annotations

import itertools
import os
import shlex
import time
import uuid
from contextlib import closing, suppress
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.confirming import confirm_spending
from tierwise.cli.opening import find_project
from tierwise.cli.options import AsJson, Fresh, Yes
from tierwise.cli.output import print_json
from tierwise.errors import Misuse
from tierwise.text.amounts import duration, plural, usd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierwise.engine import Engine
    from tierwise.evidence.certify import (
        CandidateResult,
        CostEstimate,
        Evaluation,
        GoldenStep,
    )
    from tierwise.plan import PlannedEarlierSteps
    from tierwise.policy.certificates import Certificate, Look
    from tierwise.project import Project


class Threshold(StrEnum):
    """The use of a confidence threshold, below which a model hands a document on."""

    auto = "auto"
    fit = "fit"
    none = "none"


StepName = Annotated[
    str, typer.Argument(metavar="STEP", help="A step in tasks/, such as classify.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        "-m",
        metavar="MODEL",
        help="A model, or a chain 'qwen-0.5b > qwen-1.5b'; may be repeated.",
    ),
]
GoldenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Labelled examples, .jsonl or .csv; default: golden/STEP.jsonl.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Use N examples only, drawn at random by a hash of their texts.",
    ),
]
ThresholdUse = Annotated[
    Threshold,
    typer.Option(
        help="Fit a confidence threshold: auto when the floor is missed, fit always, none never."
    ),
]
Judge = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="A stronger model that applies the step's rubric."
    ),
]
ToLabel = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Write N answers to golden/STEP-labels.jsonl for labelling.",
    ),
]
BudgetUsd = Annotated[
    float | None,
    typer.Option(metavar="USD", min=0, help="The most to spend in all."),
]
Through = Annotated[
    str | None,
    typer.Option(
        metavar="FLOW",
        help="Take the documents through this flow's earlier steps first; "
        "with its options: 'support_inbox --source inbox'.",
    ),
]
ByFieldOption = Annotated[
    bool | None,
    typer.Option(
        "--by-field/--whole",
        help="Certify the fields of a step by field, or its whole answers; "
        "default: by field where `field_floors` names the step.",
    ),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace",
        help="Replace certificates that rest on more examples than this measurement.",
    ),
]


def certify(
    step: StepName,
    models: Models = None,
    golden: GoldenFile = None,
    limit: Limit = None,
    threshold: ThresholdUse = Threshold.auto,
    judge: Judge = None,
    to_label: ToLabel = 0,
    budget_usd: BudgetUsd = None,
    through: Through = None,
    by_field: ByFieldOption = None,
    replace: Replace = False,
    yes: Yes = False,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Measure models and write their certificates.

    Runs each model over the step's golden set with production's prompts, checks, repairs and
    gateway, and pays for each call once. A model whose accuracy, the share of right answers, is
    proven to be at least the floor gets a certificate, and the router may choose it. Without
    `--models`, it compares all available models that have a price.

    A step that reads the outcomes of earlier steps is measured on those in its golden rows. With
    `--through FLOW`, the documents go through the flow's earlier steps first, by the routes of the
    rules, and the step is measured on their outcomes, with the parameters that the flow gives it.

    With `--by-field`, each field of a step by field is measured against its floor in
    `field_floors`. A field with a certificate is kept of the model, the others go to the next one.
    Each model is then measured before the strongest one, for whole documents.

    A step whose answers need judgement (`correct=rubric(…)`) takes `--judge`, an LLM as a judge. A
    judge never certifies alone: `--to-label 60` writes 60 answers for human labelling, and the
    judge is measured against these labels.
    """
    from tierwise.cli.progress import CountBar
    from tierwise.cli.render.candidates import candidate_data, print_candidates
    from tierwise.engine import Engine
    from tierwise.evidence.certify import (
        Evaluation,
        compare,
        keep_earlier,
        load_golden_step,
        look_at,
        with_reference,
    )
    from tierwise.evidence.judge import load_labels
    from tierwise.orchestrate.secrets import variables
    from tierwise.project import CERTIFICATES

    project = find_project()
    golden_step = load_golden_step(
        project, step, golden, limit=limit, outcomes_needed=through is None
    )
    # By way of text: Decimal(0.1) would be 0.1000000000000000055…
    budget = None if budget_usd is None else Decimal(str(budget_usd))
    # All runs of this command share one budget.
    budget_name = f"certify {uuid.uuid4().hex[:8]}"
    if through is not None:
        words = shlex.split(through)
        golden_step = _taken_through(
            project, golden_step, words, budget, budget_name, yes=yes, fresh=fresh
        )
    golden_file = golden_step.golden.path
    # Next to the golden set, since labels are about its examples.
    labels = golden_file.with_name(f"{golden_file.stem}-labels.jsonl")
    with Engine(project, variables(project)) as engine:
        candidates = _candidates(engine, step, models)
        with CountBar() as progress:
            evaluation = Evaluation(
                engine=engine,
                step=golden_step.step,
                golden=golden_step.golden,
                parameters=golden_step.parameters,
                judge=judge,
                labels=load_labels(labels),
                budget_usd=budget,
                budget_name=budget_name,
                # Answers recorded before this moment do not count; None: all do.
                fresh_since=time.time() if fresh else None,
                on_progress=progress,
            )
            if _is_by_field(evaluation, by_field):
                _certify_by_field(
                    evaluation,
                    candidates,
                    threshold.value,
                    replaces=replace,
                    yes=yes,
                    as_json=as_json,
                )
                return
            candidates = with_reference(evaluation, candidates)
            # Read before measuring, since the file is written as a whole afterwards.
            earlier = project.certificates.certificates
            look = look_at(
                evaluation, candidates, threshold.value, project.certificates
            )
            if not replace:
                _say_what_is_kept(evaluation, candidates, earlier)
            # No candidate is called before this question.
            _ask(evaluation, candidates, threshold.value, yes=yes)
            results = compare(
                evaluation,
                candidates,
                thresholds=threshold.value,
                look=look.number,
                to_label=to_label,
            )
        # Without any proof nothing was tested, so that no alpha is spent.
        tested = any(result.certificate or result.pairs for result in results)
        if not replace:
            results = keep_earlier(evaluation, results, earlier)
        # Before any output, so that a closed pipe cannot keep certificates from being written.
        written = _save_certificates(evaluation, results, look if tested else None)
        added = _add_labels(labels, results) if to_label else 0
        data = [candidate_data(evaluation, result) for result in results]
    if as_json:
        print_json(data)
        return
    print_candidates(evaluation, results, data)
    if to_label:
        typer.echo(
            f"{added} answers to label were added to {labels.name}: fill in `right` and `by`"
        )
    number = plural(written, "certificate") if written else "No certificate"
    typer.echo(f"{number} written to {CERTIFICATES}")
    if written:
        typer.echo(_use_of_certificates(project, step))


def _is_by_field(evaluation: Evaluation, wanted: bool | None) -> bool:
    """Return whether to certify fields: as the command says, or where the rules have floors."""
    if wanted is not None:
        return wanted
    step = evaluation.step
    return step.by_field and step.name in evaluation.engine.policy.rules.field_floors


def _certify_by_field(
    evaluation: Evaluation,
    candidates: list[tuple[str, ...]],
    thresholds: Any,
    *,
    replaces: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Measure models by field, write the certificates, and print the tables."""
    from tierwise.cli.render.fields import by_field_data, print_by_field
    from tierwise.evidence.certify import (
        chains_of,
        check_by_field,
        compare_by_field,
        look_at,
    )
    from tierwise.policy.certificates import save_certificates
    from tierwise.project import CERTIFICATES

    project = evaluation.engine.project
    check_by_field(evaluation, candidates)
    chains = list(chains_of(evaluation, candidates)) or candidates
    look = look_at(
        evaluation, candidates, thresholds, project.certificates, by_field=True
    )
    _ask(evaluation, chains, "none", yes=yes)
    found = compare_by_field(
        evaluation,
        candidates,
        project.certificates,
        thresholds=thresholds,
        look=look.number,
        replaces=replaces,
    )
    # Before any output, so that a closed pipe cannot keep certificates from being written.
    save_certificates(project.root / CERTIFICATES, found.certificates, look)
    if as_json:
        print_json(by_field_data(found))
        return
    print_by_field(evaluation, found)
    number = len(found.certificates)
    written = plural(number, "certificate") if number else "No certificate"
    typer.echo(f"{written} written to {CERTIFICATES}")
    if number:
        typer.echo(_use_of_certificates(project, evaluation.step.name))


def _use_of_certificates(project: Project, step: str) -> str:
    """Return whether a route looks at the step's certificates, with the next command."""
    routes = [
        rule
        for rule in project.rules.routes
        if rule.when.step is None or step in rule.when.step
    ]
    if any(rule.pick for rule in routes):
        return "Next: `tierwise plan FLOW` shows the routes with it"
    names = ", ".join(rule.name for rule in routes)
    return (
        f"The routes of {step} ({names}) name their models with `try:`, so certificates choose "
        "none of them: write `pick: cheapest_capable` in its place"
    )


def _save_certificates(
    evaluation: Evaluation, results: Sequence[CandidateResult], look: Look | None
) -> int:
    """Write the certificates that were measured and the look; return the certificates' number."""
    from tierwise.policy.certificates import save_certificates
    from tierwise.project import CERTIFICATES

    new = [result.certificate for result in results if result.certificate]
    root = evaluation.engine.project.root
    save_certificates(root / CERTIFICATES, new, look)
    return len(new)


def _taken_through(
    project: Project,
    golden: GoldenStep,
    words: list[str],
    budget: Decimal | None,
    budget_name: str,
    *,
    yes: bool,
    fresh: bool,
) -> GoldenStep:
    """Return the golden set as a flow brings it to the step, after asking for the cost.

    Raises Misuse for a flow that does not come to the step.
    """
    from tierwise.cli.plan import rehearse, warn_of_plain_tasks, with_defaults
    from tierwise.cli.run import flow_parameters
    from tierwise.evidence.certify import with_arrived
    from tierwise.orchestrate.secrets import variables
    from tierwise.plan import (
        EarlierSteps,
        PlannedEarlierSteps,
        StepReached,
        earlier_steps,
    )

    if not words:
        raise Misuse("--through needs the name of a flow")
    name, *options = words
    step = golden.step.name
    function = project.load_flow(name)
    given = flow_parameters(function, options)
    parameters = function.validate_parameters(with_defaults(function, given))
    warn_of_plain_tasks(function)

    def take(kind: Any, env: Mapping[str, str]) -> Any:
        """Run the flow up to the step with an engine of this kind, and return the engine."""
        engine = earlier_steps(kind, project, env, step, golden.golden.examples)
        engine.budget_usd_of_all = budget
        engine.budget_name = budget_name
        engine.fresh = engine.fresh or fresh
        # The flow is left by this exception as soon as it comes to the step.
        with closing(engine), suppress(StepReached):
            rehearse(function, parameters, engine)
        if engine.arrival is None:
            raise Misuse(
                f"the flow {name} does not come to the step {step}; "
                "name a flow that calls it, with the options that it needs"
            )
        return engine

    # Twice through the flow: first without a call, for the price, then for real.
    planned = take(PlannedEarlierSteps, project.env_with_secrets(os.environ))
    _ask_for_earlier_steps(name, step, len(golden.golden.examples), planned, yes=yes)
    arrival = take(EarlierSteps, variables(project)).arrival
    for document, reason in arrival.left_out.items():
        typer.echo(f"left out {document}: {reason}", err=True)
    return with_arrived(golden, arrival.step, arrival.parameters, arrival.examples)


def _ask_for_earlier_steps(
    flow: str, step: str, examples: int, planned: PlannedEarlierSteps, *, yes: bool
) -> None:
    """Print the cost of the steps before the measured one, and ask whether to spend it."""
    from tierwise.plan.plan import amount

    expected, most, unknown = planned.cost()
    typer.echo(
        f"{plural(examples, 'example')} through {flow} up to {step}: "
        f"about {amount(expected, unknown)}, at most {usd(most)}",
        err=True,
    )
    confirm_spending(yes=yes)


def _candidates(
    engine: Engine, step: str, models: list[str] | None
) -> list[tuple[str, ...]]:
    """Return the named chains, or else each available model that has a price, alone."""
    if models:
        # A dict keeps the order and drops a chain that is named twice.
        return list(dict.fromkeys(_parse_chain(text) for text in models))
    policy = engine.policy
    # A model without a price cannot be compared by cost, so it has to be named.
    usable = [
        model
        for model in policy.catalog.models.values()
        if policy.unusable(model, step) is None and model.price != "unknown"
    ]
    if not usable:
        raise Misuse(
            "no model is available and has a price; `tierwise models` says what to set"
        )
    return [(model.name,) for model in usable]


def _parse_chain(text: str) -> tuple[str, ...]:
    names = text.split(">")
    return tuple(name.strip() for name in names)


def _ask(
    evaluation: Evaluation,
    candidates: list[tuple[str, ...]],
    thresholds: Any,
    *,
    yes: bool,
) -> None:
    """Print the highest possible cost, and ask whether to spend it."""
    from tierwise.evidence.certify import check_measurable, estimate_cost

    check_measurable(evaluation, candidates, thresholds)
    # Each model is called once for an example, however many chains contain it.
    names = list(dict.fromkeys(itertools.chain.from_iterable(candidates)))
    most = estimate_cost(evaluation, names)
    examples = len(evaluation.golden.examples)
    text = (
        f"{plural(len(names), 'model')} x {examples} examples: at most {usd(most.usd)}"
    )
    if most.unknown:
        verb = "costs" if len(most.unknown) == 1 else "cost"
        text += f" and what {', '.join(most.unknown)} {verb}"
    if evaluation.budget_usd is not None:
        text += f"; stops at {usd(evaluation.budget_usd)}"
    text += f"; {_time(most)}"
    typer.echo(text, err=True)
    if most.usd or most.unknown:
        confirm_spending(yes=yes)


def _time(estimate: CostEstimate) -> str:
    """Return the expected time in words, with the models that no call was timed of."""
    # No seconds: every answer is on record already.
    text = "no new call"
    if estimate.seconds:
        text = f"about {duration(max(1.0, estimate.seconds))}"
    if not estimate.untimed:
        return text
    models = ", ".join(estimate.untimed)
    if estimate.seconds:
        return f"{text} and the time of {models}, which has no earlier call"
    return f"time unknown, as there is no earlier call of {models}"


def _say_what_is_kept(
    evaluation: Evaluation,
    candidates: list[tuple[str, ...]],
    earlier: Sequence[Certificate],
) -> None:
    """Say before the first call which certificates this measurement is too small to replace."""
    from tierwise.evidence.certify import larger_certificates

    larger = larger_certificates(evaluation, candidates, earlier)
    size = len(evaluation.golden.examples)
    for models, certificate in larger.items():
        typer.echo(
            f"The certificate of {' > '.join(models)} rests on {certificate.n} labels and stays: "
            f"this measurement has {plural(size, 'example')}, see --replace",
            err=True,
        )


def _add_labels(path: Path, results: Sequence[CandidateResult]) -> int:
    """Add the drawn answers to the file for human labelling, and return their number."""
    from tierwise.evidence.judge import add_labels

    labels = itertools.chain.from_iterable(result.to_label for result in results)
    return add_labels(path, labels)
