"""docs/tutorial.md as somebody types it in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.kit.projects import ROOT

PAGE = (ROOT / "docs/tutorial.md").read_text()
# a file that the page shows, named on the line before; or commands
_TYPED = re.compile(
    r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```|^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL
)


def typed_in() -> Iterator[str]:
    """The page as commands, in its order: files are written where they are shown."""
    for path, text, commands in _TYPED.findall(PAGE):
        yield f"cat > {path} << 'THE END'\n{text}THE END\n" if path else commands


def shown(language: str) -> list[str]:
    """The blocks of a language that are not typed in: what commands print, or parts of files."""
    without = re.sub(_TYPED, "", PAGE)
    return re.findall(rf"^```{language}\n(.*?)^```", without, re.MULTILINE | re.DOTALL)
