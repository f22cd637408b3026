"""`tierwise new`: add a step or a flow to a project, as a skeleton that works and is tested."""

from __future__ import annotations

import ast
import json
import keyword
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.options import command_group
from tierwise.errors import ConfigError, Misuse, UnknownName

if TYPE_CHECKING:
    from tierwise.project import Project

FLOOR = 0.9
_MARGIN = " " * 12  # the indentation of the arguments in the skeleton of a flow
OUR_OWN = {"read", "redact", "judge"}  # steps and prompts of tierwise itself
DEPLOYMENT = """\
- name: example-flow
  entrypoint: flows/example_flow.py:example_flow
  description: Say here what this job is for.
  tags: [tierwise]
  work_pool: {name: tierwise}
  concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
  parameters: {source: examples, sensitivity: internal, budget_usd: 1.0, only_new: true}
  schedules:
    - {slug: every-quarter-hour, cron: "*/15 * * * *", timezone: UTC, active: false}
"""
new = command_group("Add a step or a flow to the project.")


@new.command("step")
def new_step(
    name: Annotated[
        str, typer.Argument(help="Small letters, digits and _, such as `urgency`.")
    ],
) -> None:
    """Add a step: tasks/NAME.py, its prompt, its golden set, a test, and a floor in the rules.

    The skeleton assigns one of a few labels. Change its output, checks and prompt, and put labelled
    documents of yours into golden/NAME.jsonl. An existing file is never overwritten.
    """
    from tierwise.project import RULES, Project
    from tierwise.starter.copying import copies, write
    from tierwise.text.yaml import add_entry

    project = Project.find()
    _check_name("step", name)
    # sort_mail becomes SortMail.
    class_name = "".join(part.capitalize() for part in name.split("_"))
    names = {"ExampleStep": class_name, "example_step": name}
    texts = copies("step", project.root, names)
    # All refusals come before the first file is written.
    _refuse_used(name, class_name, texts=texts.values())
    write(texts)
    _print_made(project, texts)
    # The rules may be laid out so that a line cannot be inserted; the files are made anyway.
    try:
        add_entry(project.root / RULES, "floors", {name: FLOOR})
        typer.echo(f"{RULES}: the floor {name}: {FLOOR}")
    except ConfigError:
        typer.echo(f"write its floor into {RULES} by hand: {name}: {FLOOR}", err=True)
    typer.echo(
        f"Next: put labelled documents into golden/{name}.jsonl; "
        f"then `tierwise new flow NAME --step {name}`,"
    )
    typer.echo(f"or call {name}.map(documents, …) in a flow that there is.")


@new.command("flow")
def new_flow(
    name: Annotated[
        str, typer.Argument(help="Small letters, digits and _, such as `night_post`.")
    ],
    step: Annotated[
        str | None,
        typer.Option(help="The step that it runs; default: the first in tasks/."),
    ] = None,
) -> None:
    """Add a flow: flows/NAME.py, a test, and a deployment in prefect.yaml with a paused schedule.

    The skeleton reads a folder, runs one step over it, and writes the results. An existing file is
    never overwritten.
    """
    from tierwise.project import Project
    from tierwise.starter.copying import copies, write
    from tierwise.text.yaml import add_item

    project = Project.find()
    _check_name("flow", name)
    _refuse_hiding(project, name)
    chosen = _choose_step(project, step)
    deployment_name = name.replace("_", "-")
    names = {
        # One line of the skeleton becomes several, or none.
        f"{_MARGIN}**EXAMPLE_PARAMETERS,\n": _arguments(project, chosen),
        "example_step": chosen,
        "example_flow": name,
        # Prefect names flows and deployments with dashes.
        "example-flow": deployment_name,
    }
    texts = copies("flow", project.root, names)
    _refuse_used(name, texts=texts.values())
    deployment = DEPLOYMENT.replace("example_flow", name)
    deployment = deployment.replace("example-flow", deployment_name)
    # First, since this can fail, and would leave a flow without its deployment.
    add_item(project.root / "prefect.yaml", "deployments", deployment)
    write(texts)
    _print_made(project, texts)
    typer.echo(f"prefect.yaml: the deployment {deployment_name}, its schedule paused")
    typer.echo(f"Next: `tierwise check`, then `tierwise run {name} --source examples`")


def _check_name(kind: str, name: str) -> None:
    """Raise Misuse for a name that cannot be both a Python name and a file's name."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise Misuse(
            f"'{name}' is no name for a {kind}; use small letters, digits and _, such as sort_mail"
        )
    if keyword.iskeyword(name):
        raise Misuse(f"Python itself uses the name {name}; choose another one")
    if name in {"tasks", "flows"} | OUR_OWN:
        raise Misuse(f"tierwise itself uses the name {name}; choose another one")


def _refuse_hiding(project: Project, name: str) -> None:
    """Raise Misuse for a flow's name under which something else is imported."""
    from tierwise.lint.shadowed_modules import hidden_by

    # A flow's own folder comes first on Python's path, so `flows/json.py` would hide json.
    hidden = hidden_by(name, project.root)
    if hidden:
        raise Misuse(f"flows/{name}.py would hide {hidden}; choose another name")
    if (project.root / "tasks" / f"{name}.py").exists():
        raise Misuse(f"{name} is a step already; choose another name for the flow")


def _refuse_used(*names: str, texts: Iterable[str]) -> None:
    """Raise Misuse for a name that the skeleton imports, as it would then mean two things."""
    for text in texts:
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue  # a prompt or a golden set, not Python
        used = _imported_names(tree).intersection(names)
        if used:
            raise Misuse(
                f"the skeleton imports {min(used)} from elsewhere; choose another name"
            )


def _imported_names(tree: ast.Module) -> set[str]:
    """Return the names that a module imports from outside of the project's tasks and flows."""
    imported: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        package = (node.module or "").partition(".")[0]
        # A flow or a test imports the new step itself from there, under its own name.
        if package in ("tasks", "flows"):
            continue
        imported.update(alias.asname or alias.name for alias in node.names)
    return imported


def _choose_step(project: Project, name: str | None) -> str:
    """Return the step that a flow runs. Raises UnknownName, or Misuse where there is none."""
    names = [path.stem for path in (project.root / "tasks").glob("*.py")]
    # Sorted, so that the default does not depend on the file system.
    known = sorted(name for name in names if not name.startswith("_"))
    if name is not None and name not in known:
        raise UnknownName("step", name, known)
    if not known:
        raise Misuse(
            "there is no step in tasks/ yet; `tierwise new step NAME` adds one"
        )
    return name or known[0]


def _arguments(project: Project, step: str) -> str:
    """Return the parameters of a step's golden set as lines of a call."""
    from tierwise.steps.golden_settings import load_settings

    settings = load_settings(project.root / "golden" / f"{step}.yaml")
    parameters: Mapping[str, Any] = settings.parameters
    lines = [f"{name}={_literal(value)},\n" for name, value in parameters.items()]
    return textwrap.indent("".join(lines), _MARGIN)


def _literal(value: Any) -> str:
    """Return a value as Python text: as JSON writes it, where that means the same."""
    # A dict is laid out over several lines, as a formatter would do it.
    indent = 4 if isinstance(value, dict) else None
    text = json.dumps(value, ensure_ascii=False, default=str, indent=indent)
    # A comma after the last item of a block, which formatters add and JSON forbids.
    text = re.sub(r"(?<![\[{])(?=\n *[\]}])", ",", text)
    # JSON's true, false and null are no Python, and a date has become a text.
    try:
        means_the_same = ast.literal_eval(text) == value
    except ValueError:
        return repr(value)
    if means_the_same:
        return text
    return repr(value)


def _print_made(project: Project, paths: Iterable[Path]) -> None:
    for path in paths:
        typer.echo(f"{path.relative_to(project.root)}: made")
