"""`tierwise new`: a further step or flow of a project, as a skeleton that works and is tested."""

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
_MARGIN = " " * 12  # of the arguments in the skeleton of a flow
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
    name: Annotated[str, typer.Argument(help="Small letters, digits and _, such as `urgency`.")],
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
    kind = "".join(part.capitalize() for part in name.split("_"))
    texts = copies("step", project.root, {"ExampleStep": kind, "example_step": name})
    _refuse_used(name, kind, texts=texts.values())
    write(texts)
    _tell(project, texts)
    try:
        add_entry(project.root / RULES, "floors", {name: FLOOR})
        typer.echo(f"{RULES}: the floor {name}: {FLOOR}")
    except ConfigError:
        typer.echo(f"write its floor into {RULES} by hand: {name}: {FLOOR}", err=True)
    typer.echo(
        f"Next: put labelled documents into golden/{name}.jsonl; then `tierwise new flow NAME --step {name}`,"
    )
    typer.echo(f"or call {name}.map(documents, …) in a flow that there is.")


@new.command("flow")
def new_flow(
    name: Annotated[str, typer.Argument(help="Small letters, digits and _, such as `night_post`.")],
    step: Annotated[
        str | None, typer.Option(help="The step that it runs; default: the first in tasks/.")
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
    chosen = _step(project, step)
    names = {
        f"{_MARGIN}**EXAMPLE_PARAMETERS,\n": _arguments(project, chosen),
        "example_step": chosen,
        "example_flow": name,
        "example-flow": name.replace("_", "-"),
    }
    texts = copies("flow", project.root, names)
    _refuse_used(name, texts=texts.values())
    deployment = DEPLOYMENT.replace("example_flow", name).replace(
        "example-flow", name.replace("_", "-")
    )
    add_item(project.root / "prefect.yaml", "deployments", deployment)
    write(texts)
    _tell(project, texts)
    typer.echo(f"prefect.yaml: the deployment {name.replace('_', '-')}, its schedule paused")
    typer.echo(f"Next: `tierwise check`, then `tierwise run {name} --source examples`")


def _check_name(kind: str, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise Misuse(
            f"'{name}' is no name for a {kind}; use small letters, digits and _, such as sort_mail"
        )
    if keyword.iskeyword(name) or name in {"tasks", "flows"} | OUR_OWN:
        owner = "Python" if keyword.iskeyword(name) else "tierwise"
        raise Misuse(f"{owner} itself uses the name {name}; choose another one")


def _refuse_hiding(project: Project, name: str) -> None:
    """A flow's own folder comes first on Python's path."""
    from tierwise.lint.shadowed_modules import hidden_by

    if hidden := hidden_by(name, project.root):
        raise Misuse(f"flows/{name}.py would hide {hidden}; choose another name")
    if (project.root / "tasks" / f"{name}.py").exists():
        raise Misuse(f"{name} is a step already; choose another name for the flow")


def _refuse_used(*names: str, texts: Iterable[str]) -> None:
    """A name that the skeleton needs for something else would break it."""
    for text in texts:
        try:
            tree = ast.parse(text)
        except SyntaxError:  # not Python
            continue
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] not in ("tasks", "flows")
            for alias in node.names
        }
        if used := imported.intersection(names):
            raise Misuse(f"the skeleton imports {min(used)} from elsewhere; choose another name")


def _step(project: Project, name: str | None) -> str:
    """The step that a flow is to run. Raises UnknownName, or Misuse where there is none."""
    known = sorted(
        path.stem for path in (project.root / "tasks").glob("*.py") if not path.stem.startswith("_")
    )
    if name is not None and name not in known:
        raise UnknownName("step", name, known)
    if not known:
        raise Misuse("there is no step in tasks/ yet; `tierwise new step NAME` adds one")
    return name or known[0]


def _arguments(project: Project, step: str) -> str:
    """The parameters of a step's golden set as lines of a call."""
    from tierwise.evidence.golden import load_settings

    given: Mapping[str, Any] = load_settings(project.root / "golden" / f"{step}.yaml").parameters
    return textwrap.indent(
        "".join(f"{name}={_unmapped(value)},\n" for name, value in given.items()), _MARGIN
    )


def _unmapped(value: Any) -> str:
    """The argument, laid out as formatters do."""
    text = _literal(value)
    return f"unmapped(\n{textwrap.indent(text, '    ')}\n)" if "\n" in text else f"unmapped({text})"


def _literal(value: Any) -> str:
    """A value as Python text: as JSON writes it, where that means the same."""
    text = json.dumps(
        value, ensure_ascii=False, default=str, indent=4 if isinstance(value, dict) else None
    )
    text = re.sub(r"(?<![\[{])(?=\n *[\]}])", ",", text)
    try:
        return text if ast.literal_eval(text) == value else repr(value)
    except ValueError:
        return repr(value)


def _tell(project: Project, paths: Iterable[Path]) -> None:
    for path in paths:
        typer.echo(f"{path.relative_to(project.root)}: made")
