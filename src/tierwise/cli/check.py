"""`tierwise check`: faults in the project's files, found before anything is spent."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.opening import find_project
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json
from tierwise.errors import ConfigError, TierwiseError
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.lint.project import Finding, ProjectCheck
    from tierwise.project import Project

MOST_ALIKE = 20  # findings of one kind that are printed before the rest is only counted


def check(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="SOURCE",
            help="A folder or file of documents: report what can be read in it, and check nothing "
            "else.",
            show_default=False,
        ),
    ] = None,
    text_column: Annotated[
        str,
        typer.Option(help="With SOURCE: the column with the text in tables."),
    ] = "text",
    as_json: AsJson = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for warnings too.")
    ] = False,
    flows: Annotated[
        bool,
        typer.Option(
            "--flows/--no-flows", help="Import flows and tasks in their own process."
        ),
    ] = True,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            help="Write the JSON schemas of rules.yaml and catalog.yaml, and exit.",
        ),
    ] = False,
) -> None:
    """Check all project files, and prove the guards.

    Checks the catalog, rules, prompts, certificates, golden sets, tasks and flows, and proves that
    no combination of rules can pass a guard. Each finding is one line: `file:line: error: fault;
    remedy`. Sends nothing and spends nothing. Exit code 1 for an error, and with `--strict` for a
    warning too.

    `tierwise check SOURCE` reads a folder or file as a run does, and reports by format which
    documents can be read, which cannot, why, and what to do. Exit code 1 where one cannot be read,
    and with `--strict` where one is read in part.
    """
    if source is not None:
        from tierwise.cli.check_source import check_source

        check_source(source, text_column, as_json=as_json, strict=strict)
        return
    if schema:
        _write_schemas(find_project())
        return
    import datetime

    from tierwise.lint.project import check_project

    project = find_project()
    result = check_project(
        project,
        _variables(project),
        datetime.date.today(),
        flows=flows,
        demoted=_demoted(project),
    )
    if as_json:
        findings = [finding.data(project.root) for finding in result.findings]
        print_json({**_summary(result), "findings": findings})
    else:
        # Editors and CI read these lines: file, line, level, message.
        for line in _lines(result.findings):
            typer.echo(line)
        typer.echo(_last_line(result))
    if result.errors or (strict and result.warnings):
        raise typer.Exit(1)


def _demoted(project: Project) -> Mapping[tuple[str, tuple[str, ...]], str]:
    """Return the certificates that no longer count by the ledger, each with the reason.

    A project that never ran has no ledger, and one that is away hinders no check.
    """
    from tierwise.cli.opening import open_ledger
    from tierwise.ledger.database import DEFAULT_PATH
    from tierwise.ledger.people.demotions import not_counting

    try:
        if project.ledger_url is None and not (project.root / DEFAULT_PATH).exists():
            return {}
        if not project.certificates.certificates:
            return {}
        with open_ledger(project) as ledger:
            return not_counting(
                ledger, project.certificates, project.rules, project.catalog
            )
    except TierwiseError:
        return {}  # the check reports wrong files itself


def _write_schemas(project: Project) -> None:
    """Write the schemas of the installed version into the project, for editors."""
    from tierwise.cli.schemas import editor_schemas
    from tierwise.text.files import write_atomically

    for name, text in editor_schemas().items():
        path = project.root / name
        try:
            write_atomically(path, text)
        except OSError as error:
            raise TierwiseError(f"{path} cannot be written: {error.strerror}") from None
        typer.echo(_from_here(path))


def _variables(project: Project) -> Mapping[str, str]:
    try:
        return project.env_with_secrets(os.environ)
    except ConfigError:
        return os.environ  # the check reports this error itself, with all others


def _lines(findings: tuple[Finding, ...]) -> Iterator[str]:
    """Yield a line for each finding, and a count in place of too many of one kind."""
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding.kind] += 1
        if counts[finding.kind] <= MOST_ALIKE:
            place = _from_here(finding.path)
            if finding.line:
                place += f":{finding.line}"
            yield f"{place}: {finding.level}: {finding.message}"
    for kind, count in counts.items():
        if count > MOST_ALIKE:
            yield f"… and {count - MOST_ALIKE:,} more of this kind: {kind}; --json shows all"


def _from_here(path: Path) -> str:
    """Return a path from the terminal's current folder, so that editors can open it."""
    here = Path.cwd()
    if path.is_relative_to(here):
        path = path.relative_to(here)
    return str(path)


def _summary(result: ProjectCheck) -> dict[str, object]:
    proof = result.proof
    return {
        "errors": result.errors,
        "warnings": result.warnings,
        "proof": proof.sentence if proof else None,
        "combinations": proof.combinations if proof else None,
        "unverified_models": result.unverified,
    }


def _last_line(result: ProjectCheck) -> str:
    """Return the number of errors and warnings, what is proven, and which models are untried."""
    if result.proof:
        proof = result.proof.sentence
    elif result.sound:
        proof = "there are no guards to prove"
    else:
        # A proof over faulty files would prove nothing.
        proof = "routes and guards are checked once rules and catalog are right"
    counts = f"{_count(result.errors, 'error')}, {_count(result.warnings, 'warning')}"
    line = f"{counts}. {proof[0].upper()}{proof[1:]}"
    if result.unverified:
        line += f"; {plural(result.unverified, 'model')} in the catalog not verified"
    return f"{line}."


def _count(number: int, noun: str) -> str:
    if number == 0:
        return f"no {noun}s"
    return plural(number, noun)
