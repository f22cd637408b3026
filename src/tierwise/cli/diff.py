"""`tierwise diff`: what a change of the rules would have done to past documents."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.output import print_json, print_table
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from tierwise.explain.diff import Difference, Past
    from tierwise.ledger import Ledger, RunRow
    from tierwise.policy.catalog import Catalog
    from tierwise.policy.rules import Rules
    from tierwise.project import Project

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MOST_RUNS = 10_000


def diff(
    old: Annotated[
        str, typer.Argument(metavar="OLD_RULES", help="A file, or REVISION:PATH of git.")
    ],
    new: Annotated[
        str, typer.Argument(metavar="NEW_RULES", help="A file, or REVISION:PATH of git.")
    ],
    run: Annotated[
        str | None, typer.Option(help="Only this run: its id, the beginning of one, or `latest`.")
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Runs of the last 30m, 12h, 7d or 4w.")
    ] = "7d",
    catalog: Annotated[
        Path | None, typer.Option(help="Another catalog, for both; default: the project's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two rules files on past decisions.

    `tierwise diff HEAD:routing_rules/rules.yaml routing_rules/rules.yaml` replays the decisions of past runs, from
    the ledger, through the router with both files: which documents move to another model, which would newly leave the
    house, which fall below their floor, which would wait, and what the first models cost for the tokens of then at the
    prices of now. Nothing is called. Models that could not be used then count as such.
    """
    from tierwise.explain.diff import Replay, compare, past
    from tierwise.ledger import Ledger
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.project import Project

    project = Project.find()
    prepare_prefect(project.root)
    entries = _catalog(project, catalog)
    both = [_rules(project, entries, name) for name in (old, new)]
    with Ledger.open(project.ledger_url, root=project.root) as ledger:
        runs = [ledger.resolve_run(run)] if run else _since(ledger, since)
        found = past(ledger, runs)
        if not found.cases:
            where = f"run {runs[0].id}" if run else f"the runs of the last {since}"
            raise Misuse(
                f"{where} left no decisions that can be replayed; `tierwise runs` lists all runs"
            )
        difference = compare(
            found, *(Replay(project, ledger, entries, rules, found) for rules in both)
        )
    if as_json:
        print_json(
            {
                **difference.data(),
                "runs": [row.id for row in runs],
                "unavailable": dict(found.unavailable),
            }
        )
    else:
        _show(difference, found)


def _catalog(project: Project, path: Path | None) -> Catalog:
    from tierwise.policy.catalog import load_catalog

    return load_catalog(path) if path else project.catalog


def _rules(project: Project, catalog: Catalog, name: str) -> Rules:
    from tierwise.policy.rules import load_rules

    with _file(project.root, name) as path:
        return load_rules(path, catalog, {prompt.head.step for prompt in project.prompts})


@contextmanager
def _file(root: Path, name: str) -> Iterator[Path]:
    """A file's path; what git has under `REVISION:PATH` is put into a file for a while. Raises Misuse."""
    if Path(name).exists():
        yield Path(name)
        return
    if ":" not in name:
        raise Misuse(
            f"there is no file {name}; give a rules file, or one of git's such as HEAD:{name}"
        )
    command = ["git", "show", "--end-of-options", name]
    done = subprocess.run(command, check=False, cwd=root, capture_output=True)  # noqa: S603
    if done.returncode:
        raise Misuse(f"git has no {name}: {done.stderr.decode(errors='replace').strip()}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name.replace("/", "-")
        path.write_bytes(done.stdout)
        yield path


def _since(ledger: Ledger, text: str) -> list[RunRow]:
    number = text[:-1]
    unit = text[-1:]
    if not number.isdecimal() or unit not in _SECONDS:
        raise Misuse(f"--since takes a time such as 30m, 12h, 7d or 4w; not '{text}'")
    start = time.time() - int(number) * _SECONDS[unit]
    return [run for run in ledger.runs(_MOST_RUNS) if run.started_at >= start]


def _show(found: Difference, past: Past) -> None:
    typer.echo(
        f"{found.decisions} decisions about {found.documents} documents, replayed with both rules."
    )
    if past.without:
        typer.echo(f"{past.without} older ones are left out: they have no features on record.")
    if past.unavailable:
        typer.echo(f"Not available then, so not used here: {', '.join(sorted(past.unavailable))}.")
    _alarms(found)
    rows = [_cells(*move) for move in found.moves]
    print_table(
        rows,
        title=f"{found.moved_documents} documents move",
        empty="\nNo document moves to another model.",
    )
    for floor in found.floors:
        typer.echo(
            f"The floor of {floor.step}: {_of(floor.before)} -> {_of(floor.after)}, {floor.decisions} decisions."
        )
    typer.echo(_money(found))


def _alarms(found: Difference) -> None:
    """What must not be missed, the worst first."""
    if found.leaves:
        typer.echo(
            f"\nLEAVES THE HOUSE: {sum(move.decisions for move in found.leaves)} decisions that stayed before:"
        )
        for move in found.leaves:
            typer.echo(
                f"  {move.step}: {move.before or 'deferred'} -> {move.after}, {move.decisions}"
            )
    told = (
        ("COULD LEAVE THE HOUSE when the first model does not do", found.may_leave),
        ("BELOW THE FLOOR: the first choice is no longer certified for it", found.below),
        ("DEFERRED: no acceptable model is left", found.deferred),
    )
    for what, counts in told:
        if counts:
            typer.echo(f"\n{what}: {_counts(counts)}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{step} {count}" for step, count in counts.items())


def _cells(step: str, before: str | None, after: str | None, decisions: int) -> dict[str, Any]:
    return {
        "step": step,
        "from": before or "(deferred)",
        "to": after or "(deferred)",
        "decisions": decisions,
    }


def _of(floor: float | None) -> str:
    return "none" if floor is None else f"{floor:g}"


def _money(found: Difference) -> str:
    from tierwise.text.amounts import usd

    saved = found.cost_before - found.cost_after
    verb = "saves" if saved >= 0 else "costs"
    told = f"First choices: {usd(found.cost_before)} -> {usd(found.cost_after)}, which {verb} {usd(abs(saved))}"
    if not saved:
        told = f"First choices cost the same: {usd(found.cost_after)}"
    rest = f"; {found.unpriced} more, whose price or tokens nobody knows" if found.unpriced else ""
    return f"{told}{rest}."
