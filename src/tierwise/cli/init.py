"""`tierwise init`: a project of one's own, from the starter."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from tierwise import __version__
from tierwise.errors import Misuse


def init(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A new or an empty folder, such as `post`."),
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
    from tierwise.cli.schemas import editor_schemas
    from tierwise.starter.copying import copies, write

    if folder.exists() and not folder.is_dir():
        raise Misuse(f"{folder} is a file; name a new or an empty folder")
    requirement = _requirement()
    names = {
        # Texts of the starter's files, each with what replaces it.
        "my-project": _name(name, folder),
        'dependencies = ["tierwise"]': f'dependencies = ["{requirement}"]',
    }
    texts = copies("files", folder, names)
    # Editors check by these schemas, so they must be those of the installed version.
    schemas = {folder / path: text for path, text in editor_schemas().items()}
    write({**texts, **schemas})
    typer.echo(f"Made {folder}:")
    paths = [path.relative_to(folder) for path in texts]
    for line in _tree(paths):
        typer.echo(f"  {line}")
    source = _address()
    if source and source.is_local:
        typer.echo(
            f"Its pyproject.toml asks for {requirement}. This tierwise came from {source.url}, "
            "which others do not have: publish it on the package index that they use."
        )
    elif source:
        typer.echo(
            f"Its pyproject.toml takes tierwise from where this one came: {source.url}"
        )
    typer.echo("Next:")
    typer.echo(f"  cd {folder}")
    typer.echo("  make demo      # runs the flow on real local models")
    typer.echo("  make test      # no key, no weights, no network")


def _name(name: str | None, folder: Path) -> str:
    """Return a name for pyproject.toml. Raises Misuse for one that it would not accept."""
    if name is None:
        lower_case = folder.resolve().name.lower()
        # Anything else, such as spaces or umlauts, becomes a dash.
        own_name = re.sub(r"[^a-z0-9]+", "-", lower_case).strip("-")
        # A project called tierwise could not depend on tierwise.
        if own_name in ("", "tierwise"):
            return "my-project"
        return own_name
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or name == "tierwise":
        raise Misuse(
            f"'{name}' is no name for a project; "
            "use small letters, digits and dashes, such as incoming-post"
        )
    return name


class _Address(NamedTuple):
    """Where the running tierwise was installed from, if that was no package index."""

    url: str
    is_local: bool  # a path on this machine, which others do not have


def _address() -> _Address | None:
    # Installers write this file for an installation from a folder, a URL or a repository (PEP 610).
    direct_url = distribution("tierwise").read_text("direct_url.json")
    if direct_url is None:
        return None
    source = json.loads(direct_url)
    url: str = source["url"]
    is_local = url.startswith("file:")
    version_control: Mapping[str, str] | None = source.get("vcs_info")
    if version_control:
        system = version_control["vcs"]
        commit = version_control["commit_id"]
        # The commit, as a branch may have moved on since.
        url = f"{system}+{url}@{commit}"
    return _Address(url, is_local)


def _requirement() -> str:
    """Return a requirement that other machines can install: a public address, or the version."""
    source = _address()
    if source is None or source.is_local:
        return f"tierwise~={__version__}"
    return f"tierwise @ {source.url}"


def _tree(paths: Iterable[Path]) -> Iterator[str]:
    """Yield a line for each folder with its files, and last one for those in no folder."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        folder = ""
        if path.parent.name:
            folder = f"{path.parent}/"
        folders[folder].append(path.name)
    # "~" sorts after all letters.
    for folder in sorted(folders, key=lambda folder: folder or "~"):
        names = ", ".join(folders[folder])
        yield f"{folder:<20}{names}"
