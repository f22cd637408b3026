"""`tierwise try`: a step's prompt on one document, and the answers of some models side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.assignments import outcome_values, parameter_values
from tierwise.cli.opening import find_project
from tierwise.cli.options import AsJson, Fresh
from tierwise.cli.output import console, print_json
from tierwise.errors import UnknownName

if TYPE_CHECKING:
    from tierwise.records import Document, Sensitivity


def try_step(
    step: Annotated[
        str, typer.Argument(metavar="STEP", help="A step in tasks/, such as classify.")
    ],
    document: Annotated[
        str,
        typer.Argument(
            metavar="DOCUMENT",
            help="A file, a row such as mails.csv#3, the id of a golden row, or - for stdin.",
        ),
    ],
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            "-m",
            metavar="MODEL",
            help="A model to ask; may be repeated. Default: those of the document's route.",
        ),
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option(
            metavar="FLOW",
            help="Take the parameters of this flow, not those of golden/STEP.yaml.",
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="NAME=VALUE",
            help="Replace one parameter, such as max_words=40; may be repeated.",
        ),
    ] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEP.FIELD=VALUE",
            help="An earlier step's value; may be repeated.",
        ),
    ] = None,
    sensitivity: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="Of a file, at least: public, internal, confidential or restricted.",
        ),
    ] = "restricted",
    text_column: Annotated[
        str, typer.Option(metavar="NAME", help="The column with a row's text.")
    ] = "text",
    budget_usd: Annotated[
        float, typer.Option(metavar="USD", min=0, help="The most to spend in all.")
    ] = 0.10,
    full: Annotated[
        bool, typer.Option("--full", help="Print a long prompt as a whole.")
    ] = False,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Try a step's prompt on one document.

    Shows the rendered prompt, and side by side each model's answer, its checks, cost and latency.
    Parameters come from golden/STEP.yaml, or else from the flow that calls the step.

    Guards apply: a confidential document is never sent to a model that a guard forbids, and a file
    counts as restricted unless `--sensitivity` says otherwise. Calls are on record in a run of
    their own, named `try STEP`; an answer that was paid before is not paid again. Exit code 1 if no
    model gave an answer that can be read.

    Example: `tierwise try classify mail.txt -m qwen-1.5b -m gpt-mini --sensitivity internal`
    """
    from tierwise.cli.render.trial import trial_data, trial_lines
    from tierwise.cli.trial import parse_budget

    # Renamed, as this command is called try_step, too.
    from tierwise.cli.trial import try_step as run_trial
    from tierwise.cli.trial_inputs import (
        ReadingOptions,
        find_document,
        find_parameters,
    )
    from tierwise.engine import Engine
    from tierwise.orchestrate.secrets import variables

    project = find_project()
    options = ReadingOptions(
        _sensitivity(sensitivity),
        text_column,
        project.settings.incomplete,
        project.reading,
    )
    # Parameters first: a wrong one is refused before the document is read.
    given = find_parameters(project, step, flow, parameter_values(parameter or ()))
    found = find_document(project, given.step.name, document, options)
    earlier = outcome_values(outcome or ())
    found = replace(found, document=_with_outcomes(found.document, earlier))
    with (
        Engine(project, variables(project)) as engine,
        console(err=True).status("reading the prompt") as status,
    ):
        trial = run_trial(
            engine,
            given,
            found,
            models or (),
            budget_usd=parse_budget(budget_usd),
            fresh=fresh,
            on_model=lambda name: status.update(f"asking {name}"),
        )
    if as_json:
        print_json(trial_data(trial))
    else:
        for line in trial_lines(trial, full=full):
            typer.echo(line)
    # A wrong answer is a result of a trial; no answer at all is a failure.
    if not trial.answered:
        raise typer.Exit(1)


def _sensitivity(word: str) -> Sensitivity:
    from tierwise.records import SENSITIVITIES

    # The level from the tuple has the type Sensitivity; `word` is any text.
    for level in SENSITIVITIES:
        if level == word:
            return level
    raise UnknownName("sensitivity", word, SENSITIVITIES)


def _with_outcomes(document: Document, values: dict[str, Any]) -> Document:
    """Return the document as it would come from earlier steps, as sensitive as it is itself."""
    from tierwise.records import Outcome

    for step, value in values.items():
        earlier = Outcome(
            step=step,
            status="accepted",
            value=value,
            sensitivity=document.sensitivity,
        )
        document = document.with_outcome(earlier)
    return document
