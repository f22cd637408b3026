"""`tierwise init`: a project of one's own, from the starter."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Annotated

import typer

from tierwise import __version__
from tierwise.errors import Misuse


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new or an empty folder, such as `post`.")
    ],
    name: Annotated[
        str | None, typer.Option(help="The project's name; default: the folder's.")
    ] = None,
) -> None:
    """Create a project from the starter.

    `tierwise init post` makes a folder with a flow, steps, rules, prompts, golden sets and tests.
    It runs unchanged: `make demo` sorts and summarises six letters on small local models, without a
    key or a GPU. `tierwise new step` and `tierwise new flow` add to it. An existing file is never
    overwritten.
    """
    from tierwise.policy.rules import rules_schema
    from tierwise.starter.copying import copies, write

    if folder.exists() and not folder.is_dir():
        raise Misuse(f"{folder} is a file; name a new or an empty folder")
    requirement = _requirement()
    names = {
        "my-project": _name(name, folder),
        'dependencies = ["tierwise"]': f'dependencies = ["{requirement}"]',
    }
    texts = copies("files", folder, names)
    write(
        {
            **texts,
            folder / "routing_rules/rules.schema.json": json.dumps(rules_schema(), indent=2) + "\n",
        }
    )
    typer.echo(f"Made {folder}:")
    for line in _tree(path.relative_to(folder) for path in texts):
        typer.echo(f"  {line}")
    if "@" in requirement:
        source = requirement.partition(" @ ")[2]
        typer.echo(f"Its pyproject.toml takes tierwise from where this one came: {source}")
    typer.echo("Next:")
    typer.echo(f"  cd {folder}")
    typer.echo("  make demo      # sets up .venv and runs the flow on real local models")
    typer.echo("  make test      # no key, no weights, no network")


def _name(name: str | None, folder: Path) -> str:
    """A name for pyproject.toml."""
    if name is None:
        found = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
        return found if found not in ("", "tierwise") else "my-project"
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or name == "tierwise":
        raise Misuse(
            f"'{name}' is no name for a project; use small letters, digits and dashes, such as incoming-post"
        )
    return name


def _requirement() -> str:
    """How the project gets tierwise: from where the one that runs here came, else by its version."""
    told = distribution("tierwise").read_text("direct_url.json")
    if told is None:
        return f"tierwise~={__version__}"
    source: Mapping[str, Mapping[str, str]] = json.loads(told)
    if version_control := source.get("vcs_info"):
        return f"tierwise @ {version_control['vcs']}+{source['url']}@{version_control['commit_id']}"
    return f"tierwise @ {source['url']}"


def _tree(paths: Iterator[Path]) -> Iterator[str]:
    """A line for each folder with its files, and one for those that are in none."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        folders[f"{path.parent}/" if path.parent.name else ""].append(path.name)
    for folder, names in sorted(folders.items(), key=lambda item: item[0] or "~"):
        yield f"{folder:<20}{', '.join(names)}"
