"""`tierwise diff`: a change of the rules, tried on past documents."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, RunRow
    from tierwise.policy.catalog import Catalog
    from tierwise.policy.rules import Rules
    from tierwise.project import Project

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MOST_RUNS = 10_000


def diff(
    old: Annotated[
        str,
        typer.Argument(metavar="OLD_RULES", help="A file, or REVISION:PATH of git."),
    ],
    new: Annotated[
        str,
        typer.Argument(metavar="NEW_RULES", help="A file, or REVISION:PATH of git."),
    ],
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Only this run: an id, or `latest`."),
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="SPAN", help="Runs of the last 30m, 12h, 7d or 4w.")
    ] = "7d",
    catalog: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Another catalog for both; default: the project's."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two rules files on past decisions.

    `tierwise diff HEAD:routing_rules/rules.yaml routing_rules/rules.yaml` replays the decisions of
    past runs from the ledger with both files. It reports which documents move to another model,
    leave the house, fall below their floor or are deferred, and the cost of the first models at
    today's prices. No model is called. Models that were unavailable then count as unavailable.
    """
    from tierwise.cli.render.diff import print_difference
    from tierwise.explain.diff import Replay, compare, past
    from tierwise.policy.catalog import load_catalog

    project = find_project()
    entries = load_catalog(catalog) if catalog else project.catalog
    old_rules = _load_rules(project, entries, old)
    new_rules = _load_rules(project, entries, new)
    with open_ledger(project) as ledger:
        # One run, or all of a span; --since is ignored where a run is named.
        runs = [ledger.runs.resolve(run)] if run else _runs_since(ledger, since)
        cases = past(ledger, runs)
        if not cases.cases:
            where = f"run {runs[0].id}" if run else f"the runs of the last {since}"
            raise Misuse(
                f"{where} left no decisions that can be replayed; `tierwise runs` lists all runs"
            )
        difference = compare(
            cases,
            # The same catalog and cases for both, so that only the rules differ.
            Replay(project, ledger, entries, old_rules, cases),
            Replay(project, ledger, entries, new_rules, cases),
        )
    if as_json:
        replayed = {
            "runs": [row.id for row in runs],
            "unavailable": dict(cases.unavailable),
        }
        print_json({**difference.data(), **replayed})
    else:
        print_difference(difference, cases)


def _load_rules(project: Project, catalog: Catalog, name: str) -> Rules:
    from tierwise.policy.rules import load_rules

    # The steps that rules may name are those with a prompt.
    with _file(project.root, name) as path:
        return load_rules(
            path, catalog, {prompt.head.step for prompt in project.prompts}
        )


@contextmanager
def _file(root: Path, name: str) -> Iterator[Path]:
    """Yield a file's path; a `REVISION:PATH` of git becomes a temporary file. Raises Misuse."""
    if Path(name).exists():
        yield Path(name)
        return
    if ":" not in name:
        raise Misuse(
            f"there is no file {name}; give a rules file, or one of git's such as HEAD:{name}"
        )
    # After --end-of-options, a name that begins with a dash is no option of git.
    command = ["git", "show", "--end-of-options", name]
    done = subprocess.run(command, check=False, cwd=root, capture_output=True)  # noqa: S603
    if done.returncode:
        # git's own message says whether the revision or the path is wrong.
        raise Misuse(
            f"git has no {name}: {done.stderr.decode(errors='replace').strip()}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name.replace("/", "-")
        path.write_bytes(done.stdout)
        yield path


def _runs_since(ledger: Ledger, span: str) -> list[RunRow]:
    """Return the runs of a span such as 7d. Raises Misuse for a misspelt one."""
    number = span[:-1]
    # A slice, as an empty text has no last character.
    unit = span[-1:]
    if not number.isdecimal() or unit not in _SECONDS:
        raise Misuse(f"--since takes a time such as 30m, 12h, 7d or 4w; not '{span}'")
    start = time.time() - int(number) * _SECONDS[unit]
    return [run for run in ledger.runs.newest(_MOST_RUNS) if run.started_at >= start]
