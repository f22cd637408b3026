"""Writes the parts of docs/architecture.md that come from the code: `python -m docs.architecture`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.kit.rooms import BANDS, DOORS, ENGINE, FILES, ROOMS, imports, module_of

PAGE = Path(__file__).with_name("architecture.md")
_BLOCK = "<!-- {name}: written by `make docs-reference` -->\n"


def bands() -> str:
    """Return the six bands as a picture, the highest on top."""
    notes = ["|", "|", "|", "|", "|", "v"]  # imports point down
    rows = [(band, "  ".join(rooms)) for band, rooms in reversed(BANDS.items())]
    first = max(len(band) for band, _ in rows) + 3
    second = max(len(names) for _, names in rows) + 3
    lines = [
        f"{band:<{first}}{names:<{second}}{note}"
        for (band, names), note in zip(rows, notes, strict=True)
    ]
    picture = "\n\n".join(lines)
    return f"```text\n{picture}\n```\n"


def rooms() -> str:
    """Return a table of the rooms: band, purpose, and the rooms that each imports."""
    lines = ["| room | band | purpose | imports |", "|---|---|---|---|"]
    for band, names in BANDS.items():
        for name in names:
            imported = ", ".join(imports_of(name)) or "nothing"
            lines.append(f"| `{name}` | {band} | {purpose(name)} | {imported} |")
    return "\n".join(lines) + "\n"


def imports_of(room: str) -> list[str]:
    """Return the other rooms that a room imports, at the top of a file or inside a function."""
    imported: set[str] = set()
    for path in FILES:
        if module_of(path) != room:
            continue
        for name in imports(path, for_types=False):
            package, _, rest = name.partition(".")
            if package == "tierwise":
                imported.add(rest.partition(".")[0])
    return [other for other in ROOMS if other in imported and other != room]


def doors() -> str:
    """Return a table of the third-party packages that few rooms may import."""
    lines = ["| package | imported only in |", "|---|---|"]
    lines += [
        f"| {package} | {', '.join(sorted(names))} |"
        for package, names in DOORS.items()
    ]
    return "\n".join(lines) + "\n"


def purpose(room: str) -> str:
    """Return the first sentence of a room's docstring."""
    folder = ENGINE / room
    path = folder / "__init__.py" if folder.is_dir() else ENGINE / f"{room}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph)[0].rstrip(".:").replace("|", "\\|")


def written(text: str) -> str:
    """Return a page with its blocks written again from the code."""
    for name, block in (("bands", bands()), ("rooms", rooms()), ("doors", doors())):
        start = _BLOCK.format(name=name)
        before, _, rest = text.partition(start)
        _, end, after = rest.partition("<!-- end -->\n")
        if not end:
            raise ValueError(f"{PAGE.name} has no block {name!r}")
        text = f"{before}{start}\n{block}\n{end}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
