"""What every page of the desk works with: the project, its ledger, access, and templates."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment
from markupsafe import Markup

from tierwise import __version__
from tierwise.desk.access import Access
from tierwise.desk.addresses import document_path, item_path, run_path, to_parameter
from tierwise.desk.guard import CSRF_FIELD, person_of
from tierwise.desk.messages import cause_title, said, unticked
from tierwise.desk.navigation import NAVIGATION
from tierwise.desk.pace import Pace
from tierwise.desk.project_watch import ProjectWatch
from tierwise.desk.queue_view import QueueReader
from tierwise.desk.tries import Tries
from tierwise.ledger import Ledger
from tierwise.project import Project
from tierwise.report.markup import markup_environment
from tierwise.text.amounts import duration

_T = TypeVar("_T")
log = logging.getLogger(__name__)
_DUTY = 10.0  # an answer that takes a second is made every ten
_STALE_S = 20.0
_SLOW_S = 0.2  # an answer that takes longer is made in the background
_MOST_KEPT = 500


@dataclass
class Desk:
    """One desk: the project, its open ledger, and how people get in.

    `prefect_url` returns the address of Prefect's UI, or None while there is none. Figures may be
    `keep_s` seconds old, and older where they take long to read.
    """

    started_with: Project
    ledger: Ledger
    access: Access
    prefect_url: Callable[[], str | None] = field(default=lambda: None)
    keep_s: float = 2.0
    pace: Pace = field(default_factory=Pace)
    tries: Tries = field(default_factory=Tries)
    watch: ProjectWatch = field(init=False)  # its files may change while the desk runs

    def __post_init__(self) -> None:
        """Note the project's files as they are at the start."""
        self.watch = ProjectWatch(self.started_with)

    @property
    def project(self) -> Project:
        """The project as its files were at the last look."""
        return self.watch.project

    def look_at_files(self) -> None:
        """Take up the project's files where they changed."""
        if self.watch.look():
            self.kept.forget("files")

    @cached_property
    def kept(self) -> Kept:
        """Answers of the ledger that are kept for a moment."""
        return Kept(self.keep_s)

    @cached_property
    def queue(self) -> QueueReader:
        """What waits for a person, read once for many requests."""
        return QueueReader()

    @cached_property
    def styles(self) -> str:
        """The style sheet: the report's, and the desk's own after it."""
        report = files("tierwise.report") / "templates" / "report.css"
        own = files("tierwise.desk") / "static"
        sheets = (report, own / "desk.css", own / "review.css")
        return "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)

    @cached_property
    def script(self) -> str:
        """The script of all pages."""
        own = files("tierwise.desk") / "static"
        scripts = (own / "desk.js", own / "keys.js")
        return "".join(script.read_text(encoding="utf-8") for script in scripts)

    @cached_property
    def assets(self) -> str:
        """A name for the version of style sheet and script, for their addresses."""
        text = f"{self.styles}\0{self.script}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def page(
        self, request: Request, template: str, code: int = 200, /, **values: Any
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
            _environment()
            .get_template(template)
            .render(
                **values,
                person=person,
                csrf=field_of_form.format(CSRF_FIELD, token),
                csrf_token=token,
                navigation=navigation,
                path=request.url.path,
                project_name=self.project.root.name,
                files_state=self.watch.state,
                assets=self.assets,
                version=__version__,
                now=time.time(),
            )
        )
        # A lone half of a character cannot be encoded; `finalize` has spelt out those of values.
        return HTMLResponse(html.encode("utf-8", "replace"), status_code=code)


@cache
def _environment() -> Environment:
    environment = markup_environment("tierwise.desk")
    environment.filters |= {
        "duration": duration,
        "run_path": run_path,
        "parameter": to_parameter,
        "said": said,
        "unticked": unticked,
        "cause": cause_title,
    }
    environment.globals["document_path"] = document_path
    environment.globals["item_path"] = item_path
    return environment


def compile_templates() -> None:
    """Compile all templates, so that no page's first visitor waits for it."""
    environment = _environment()
    for name in environment.list_templates():
        environment.get_template(name)


def desk_of(request: Request) -> Desk:
    """Return the desk of a request: a dependency."""
    desk: Desk = request.app.state.desk
    desk.look_at_files()
    return desk


TheDesk = Annotated[Desk, Depends(desk_of)]


class Kept:
    """Keeps answers, so that many open pages ask the ledger once, and none waits for it.

    An answer that is older than its time is still given, while a thread makes the next one. The
    time grows with the time that it takes, so that looking never becomes the ledger's main load.
    """

    def __init__(self, seconds: float) -> None:
        """With 0 seconds, every answer is made when it is asked for."""
        self._seconds = seconds
        self._lock = threading.Lock()
        self._renewed_at = 0.0
        self._kept: dict[Hashable, _Answer] = {}
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], _T], seconds: float = 0.0) -> _T:
        """Return the answer for a key. `seconds` is its time, where it is longer than usual."""
        if not self._seconds:
            return make()
        with self._lock:
            answer = self._kept.get(key)
            making = self._making.setdefault(key, threading.Lock())
        if answer is None:
            with making:
                # Another request may have made it meanwhile.
                answer = self._kept.get(key) or self._make(key, make)
            value: _T = answer.value
            return value
        time_s = max(self._seconds, seconds, _DUTY * answer.took_s)
        age = time.monotonic() - answer.begun_at
        is_outdated = answer.begun_at < self._renewed_at
        if age > time_s + _STALE_S or (is_outdated and answer.took_s < _SLOW_S):
            # A page that nobody had open, or a person's own decision: what was shown last misleads.
            with making:
                newer = self._kept.get(key, answer)
                answer = newer if newer is not answer else self._make(key, make)
        elif (age > time_s or is_outdated) and making.acquire(blocking=False):
            thread = threading.Thread(
                target=self._make_again, args=(key, make, making), daemon=True
            )
            thread.start()
        kept: _T = answer.value
        return kept

    def forget(self, kind: str) -> None:
        """Drop the answers of a kind: the first part of their keys."""
        with self._lock:
            for key in list(self._kept):
                if isinstance(key, tuple) and key[0] == kind:
                    del self._kept[key]

    def renew(self) -> None:
        """Give no answer from before this moment: who decided something sees it at once.

        One that takes long to make is given once more, while a thread makes the next one.
        """
        self._renewed_at = time.monotonic()

    def _make(self, key: Hashable, make: Callable[[], Any]) -> _Answer:
        began = time.monotonic()
        value = make()
        answer = _Answer(value, began, time.monotonic() - began)
        with self._lock:
            if len(self._kept) > _MOST_KEPT:
                oldest = min(self._kept, key=lambda key: self._kept[key].begun_at)
                del self._kept[oldest]
            self._kept[key] = answer
        return answer

    def _make_again(
        self, key: Hashable, make: Callable[[], Any], making: threading.Lock
    ) -> None:
        try:
            self._make(key, make)
        except Exception as error:  # noqa: BLE001 - the page shows it once the answer is too old
            log.warning("%s could not be read again: %s", key, type(error).__name__)
        finally:
            making.release()


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any
    begun_at: float
    took_s: float
