"""`tierwise docs`: the pages of the documentation, in the terminal."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from tierwise.cli.output import console
from tierwise.errors import TierwiseError, UnknownName

PACKAGE = Path(__file__).parent.parent
WHEEL_PAGES = PACKAGE / "pages"  # where pyproject.toml puts docs/ in the wheel
_MOST_COLUMNS = 100
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
# A page that is another file: `make docs` puts that file in its place.
_INCLUDED = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


def docs(
    page: Annotated[
        str | None,
        typer.Argument(
            metavar="PAGE",
            help="A page, such as tutorial or reference/rules. Default: list all.",
        ),
    ] = None,
) -> None:
    """Show the documentation in the terminal.

    Without a page, it lists all pages of the installed version. In a pipe, it prints the page's
    Markdown: `tierwise docs reference/commands | less`.
    """
    pages = find_pages()
    if page is None:
        width = max(map(len, pages))
        for name, file in pages.items():
            typer.echo(f"{name:<{width}}  {_title(file)}")
        typer.echo("\n`tierwise docs PAGE` shows one.")
        return
    # As a link of another page names it: money.md#the-price
    name = page.partition("#")[0].removesuffix(".md")
    if name not in pages:
        raise UnknownName("page", name, pages)
    text = read_page(pages[name])
    # A pipe gets the Markdown as it is, for another program.
    if sys.stdout.isatty():
        _print_markdown(text)
    else:
        typer.echo(text, nl=False)


def find_pages() -> dict[str, Path]:
    """Return the files of all pages by name, such as `reference/rules`; the start page is first.

    Raises TierwiseError where this installation has none.
    """
    # In a clone, the pages are where they are written.
    for folder in (WHEEL_PAGES, PACKAGE.parent.parent / "docs"):
        if (folder / "index.md").is_file():
            files = folder.rglob("*.md")
            pages = {
                file.relative_to(folder).with_suffix("").as_posix(): file
                for file in files
            }
            # False sorts before True: index, then the pages of this level, then those in folders.
            names = sorted(pages, key=lambda name: (name != "index", "/" in name, name))
            return {name: pages[name] for name in names}
    raise TierwiseError(
        f"{WHEEL_PAGES}: the pages are not in this installation; install tierwise from its wheel"
    )


def read_page(file: Path) -> str:
    """Return a page's Markdown."""
    text = file.read_text(encoding="utf-8")
    included = _INCLUDED.search(text)
    if included:
        # From the folder above the pages, which is the repository's root in a clone.
        return (file.parent.parent / included[1]).read_text(encoding="utf-8")
    return text


def _title(file: Path) -> str:
    title = _TITLE.search(read_page(file))
    return title[1] if title else ""


def _print_markdown(text: str) -> None:
    from rich.markdown import Markdown

    terminal = console()
    width = min(terminal.width, _MOST_COLUMNS)
    # The address of a link is the name of the page that it leads to.
    terminal.print(Markdown(text, hyperlinks=False), width=width)
