"""What every page of the desk works with: the project, its ledger, access, and templates."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from tierwise import __version__
from tierwise.desk.access import Access
from tierwise.desk.guard import CSRF_FIELD, person_of
from tierwise.desk.navigation import NAVIGATION
from tierwise.ledger import Ledger
from tierwise.project import Project
from tierwise.report.markup import markup_environment

_T = TypeVar("_T")


@dataclass
class Desk:
    """One desk: the project, its open ledger, and how people get in.

    `prefect_url` returns the address of Prefect's UI, or None while there is none.
    """

    project: Project
    ledger: Ledger
    access: Access
    prefect_url: Callable[[], str | None] = field(default=lambda: None)

    @cached_property
    def styles(self) -> str:
        """The style sheet: the report's, and the desk's own after it."""
        report = files("tierwise.report") / "templates" / "report.css"
        own = files("tierwise.desk") / "static" / "desk.css"
        return report.read_text(encoding="utf-8") + own.read_text(encoding="utf-8")

    @cached_property
    def script(self) -> str:
        """The script of all pages."""
        return (files("tierwise.desk") / "static" / "desk.js").read_text(
            encoding="utf-8"
        )

    @cached_property
    def assets(self) -> str:
        """A name for the version of style sheet and script, for their addresses."""
        text = f"{self.styles}\0{self.script}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def page(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """Return a page. All text is escaped; `person` and `csrf` are there for the template."""
        person = person_of(request)
        token = ""
        navigation = []
        if person is not None:
            token = self.access.csrf_token(person)
            navigation = [
                entry for entry in NAVIGATION if person.is_at_least(entry.role)
            ]
        field_of_form = Markup('<input type="hidden" name="{}" value="{}">')
        html = (
            markup_environment("tierwise.desk")
            .get_template(template)
            .render(
                **values,
                person=person,
                csrf=field_of_form.format(CSRF_FIELD, token),
                csrf_token=token,
                navigation=navigation,
                path=request.url.path,
                project_name=self.project.root.name,
                assets=self.assets,
                version=__version__,
                now=time.time(),
            )
        )
        # A lone half of a character cannot be encoded; `finalize` has spelt out those of values.
        return HTMLResponse(html.encode("utf-8", "replace"), status_code=status)


def desk_of(request: Request) -> Desk:
    """Return the desk of a request: a dependency."""
    desk: Desk = request.app.state.desk
    return desk


TheDesk = Annotated[Desk, Depends(desk_of)]


class Kept:
    """Keeps an answer for some seconds, so that many open pages ask the ledger once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: dict[Hashable, tuple[float, Any]] = {}

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the answer for a key, made again when it is older than the time."""
        with self._lock:
            now = time.monotonic()
            made = self._kept.get(key)
            if made is not None and now - made[0] < self._seconds:
                value: _T = made[1]
                return value
            fresh = make()
            self._kept[key] = (time.monotonic(), fresh)
            return fresh
