"""`tierwise check`: everything that is wrong in a project's files, before anything is spent."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.output import print_json
from tierwise.errors import ConfigError

if TYPE_CHECKING:
    from tierwise.lint.project import Finding, ProjectCheck
    from tierwise.project import Project

MOST_ALIKE = 20  # findings of one kind that are printed before the rest is only counted


def check(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with every finding.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")
    ] = False,
    flows: Annotated[
        bool,
        typer.Option(
            "--flows/--no-flows", help="Import flows and tasks, in a process of their own."
        ),
    ] = True,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of rules.yaml and stop.")
    ] = False,
) -> None:
    """Check all project files, and prove the guards.

    Looks at catalog, rules, prompts, certificates, golden sets, tasks and flows. Each finding is one line,
    `file:line: error: what is wrong; remedy`. Nothing is sent anywhere and nothing is spent. Exit 1 when
    there is an error; warnings alone are no failure, unless with `--strict`.
    """
    if schema:
        _print_schema()
        return
    import datetime

    from tierwise.lint.project import check_project
    from tierwise.project import Project

    project = Project.find()
    report = check_project(project, _variables(project), datetime.date.today(), flows=flows)
    if as_json:
        print_json(
            {
                **_summary(report),
                "findings": [finding.data(project.root) for finding in report.findings],
            }
        )
    else:
        for line in (*_lines(report.findings), _sentence(report)):
            typer.echo(line)
    if report.errors or (strict and report.warnings):
        raise typer.Exit(1)


def _variables(project: Project) -> Mapping[str, str]:
    try:
        return project.env_with_secrets(os.environ)
    except ConfigError:  # the check tells it, with everything else
        return os.environ


def _print_schema() -> None:
    from tierwise.policy.rules import rules_schema

    print_json(rules_schema())


def _lines(findings: tuple[Finding, ...]) -> Iterator[str]:
    shown: Counter[str] = Counter()
    for finding in findings:
        shown[finding.kind] += 1
        if shown[finding.kind] <= MOST_ALIKE:
            place = (
                f"{_short(finding.path)}:{finding.line}" if finding.line else _short(finding.path)
            )
            yield f"{place}: {finding.level}: {finding.message}"
    for kind, count in shown.items():
        if count > MOST_ALIKE:
            yield f"… and {count - MOST_ALIKE:,} more of this kind: {kind}; --json shows all"


def _short(path: Path) -> str:
    """A path as the terminal's current folder sees it, so that editors can open it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _summary(report: ProjectCheck) -> dict[str, object]:
    return {
        "errors": report.errors,
        "warnings": report.warnings,
        "proof": report.proof.sentence if report.proof else None,
        "combinations": report.proof.combinations if report.proof else None,
        "unverified_models": report.unverified,
    }


def _sentence(report: ProjectCheck) -> str:
    """The last line: how many of each, what is proven, and what nobody has tried."""
    counts = [_counted(report.errors, "error"), _counted(report.warnings, "warning")]
    if report.proof:
        proof = report.proof.sentence
    elif report.sound:
        proof = "there are no guards to prove"
    else:
        proof = "routes and guards are looked at once rules and catalog are right"
    unverified = (
        f"; {_counted(report.unverified, 'model')} in the catalog not verified"
        if report.unverified
        else ""
    )
    return f"{', '.join(counts)}. {proof[0].upper()}{proof[1:]}{unverified}."


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
