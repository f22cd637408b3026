"""Progress on stderr: bars and spinners in a terminal, plain lines everywhere else.

A log or a pipe gets a line at once and then one every few seconds, so that a long command is never
silent.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, Self

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tierwise.cli.output import console
from tierwise.text.amounts import plural, usd

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import TaskID

    from tierwise.records import Document, Outcome

LINE_EVERY_S = 5.0
_STARTING = "starting Prefect"


class PlainLines:
    """A thread that prints a line at once, and then one every few seconds until it is closed."""

    def __init__(self, describe: Callable[[], str]) -> None:
        self._describe = describe
        self._started_at = time.monotonic()
        self._closing = threading.Event()
        # A daemon, so that a process that dies of an error need not wait for it.
        self._thread = threading.Thread(target=self._print_lines, daemon=True)

    def start(self) -> None:
        """Print the first line and start the thread; does nothing when it has started."""
        # A thread has no ident before its start.
        if self._thread.ident is None:
            self._print()
            self._thread.start()

    def close(self) -> None:
        """Stop printing."""
        # Ends the wait in `_print_lines` at once, so closing takes no five seconds.
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def print_now(self) -> None:
        """Print a line out of turn; does nothing before the start."""
        if self._thread.ident is not None:
            self._print()

    def _print_lines(self) -> None:
        while not self._closing.wait(LINE_EVERY_S):
            self._print()

    def _print(self) -> None:
        seconds = time.monotonic() - self._started_at
        typer.echo(f"{seconds:4.0f} s  {self._describe()}", err=True)


@contextmanager
def status(activity: str) -> Iterator[None]:
    """Show what is being done: a spinner in a terminal, else plain lines."""
    if sys.stderr.isatty():
        # All progress is on stderr: stdout may be piped as JSON.
        with console(err=True).status(activity):
            yield
        return
    lines = PlainLines(lambda: activity)
    lines.start()
    try:
        yield
    finally:
        lines.close()


class _Display:
    """A rich bar in a terminal, plain lines elsewhere. Nothing is shown before `start`."""

    def __init__(self, bars: Progress, describe: Callable[[], str]) -> None:
        self._bars = bars
        # None: a terminal, where rich draws.
        self._lines = None if sys.stderr.isatty() else PlainLines(describe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to show progress."""
        if self._lines:
            self._lines.start()
        else:
            self._bars.start()

    def close(self) -> None:
        """Stop showing progress."""
        if self._lines:
            self._lines.close()
        else:
            self._bars.stop()


class CountBar(_Display):
    """A bar for one activity after the other, called with the activity, the done and the total."""

    def __init__(self) -> None:
        bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console(err=True),
            transient=True,
        )
        # The text of the moment when a line is printed, hence a lambda.
        super().__init__(bars, lambda: self._text)
        self._text = ""
        self._task = bars.add_task("")

    def __call__(self, activity: str, done: int, total: int) -> None:
        """Show an activity's progress."""
        self._text = f"{activity}: {done} of {total}"
        # A new activity: the time that remains is estimated from now on.
        if done == 0:
            self._bars.reset(self._task, description=activity, total=total)
        # Outside a terminal, an activity has a line at its beginning and at its end.
        if self._lines and done in (0, total):
            self._lines.print_now()
        # It starts at the first call and not before, as a question may come first.
        self.start()
        self._bars.update(self._task, completed=done)


class DownloadBar(_Display):
    """A bar for one download, called with the bytes so far and in all."""

    def __init__(self, name: str, size: int | None = None) -> None:
        """Take the name, and the file's size where the catalog says it."""
        bars = Progress(
            TextColumn(name),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console(err=True),
        )
        super().__init__(bars, lambda: self._text)
        self._text = f"fetching {name}"
        if size is not None:
            self._text = f"fetching {name}: {_megabytes(size)} MB"
        self._name = name
        self._task = bars.add_task(name, total=size)
        self._total = size

    def __enter__(self) -> Self:
        self.start()
        return self

    def __call__(self, done: int, total: int) -> None:
        """Show the bytes so far."""
        self._text = (
            f"fetching {self._name}: {_megabytes(done)} of {_megabytes(total)} MB"
        )
        if total != self._total:
            # Another source has another size: the time that remains is estimated anew.
            self._total = total
            self._bars.reset(self._task, total=total)
        self._bars.update(self._task, completed=done)

    def say(self, sentence: str) -> None:
        """Print a line above the bar."""
        if self._lines:
            typer.echo(sentence, err=True)
        else:
            self._bars.console.print(sentence, markup=False, highlight=False)


def _megabytes(size: int) -> str:
    """Return bytes in MB; small files need a decimal, or they would show as 0."""
    megabytes = size / 1e6
    return f"{megabytes:.0f}" if megabytes >= 10 or size == 0 else f"{megabytes:.1f}"


class Countable(Protocol):
    """What runs a flow, and knows how many documents were read."""

    expected_documents: int
    expected_groups: int
    batches_text: str  # how far provider batches are; empty without any

    @property
    def loading(self) -> str | None:
        """The embedded model whose server is being started, if there is one."""


class _BarsWithBatches(Progress):
    """Bars with a line below them while provider batches are open."""

    def __init__(self, runner: Countable, *columns: Any, **settings: Any) -> None:
        # First, as the base class draws the bars already.
        self._runner = runner
        super().__init__(*columns, **settings)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bars, and the line if there is one."""
        yield from super().get_renderables()
        if self._runner.batches_text:
            yield Text(f"waiting for {self._runner.batches_text}")


class StepBars(_Display):
    """A bar for each step of a run, called with every document and its outcome."""

    def __init__(self, runner: Countable) -> None:
        bars = _BarsWithBatches(
            runner,
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console(err=True),
            transient=True,
        )
        super().__init__(bars, self.describe)
        self._runner = runner
        self._counts: dict[str, Counter[str]] = {}
        self._tasks: dict[str, TaskID] = {}
        self._of_groups: set[str] = set()  # steps over groups of documents
        self._cost = Decimal(0)
        self._unknown = 0  # calls of unknown cost
        # Nothing is known of the steps yet, and the first answer may take a minute.
        self._starting = bars.add_task(_STARTING, total=None, note="")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __call__(self, document: Document, outcome: Outcome) -> None:
        """Count an outcome."""
        if document.members:
            self._of_groups.add(outcome.step)
        counts = self._counts.setdefault(outcome.step, Counter())
        counts["done"] += 1
        counts[outcome.status] += 1
        # A bool counts as 0 or 1.
        counts["escalated"] += outcome.escalated
        for attempt in outcome.attempts:
            # A reused answer was paid for in an earlier run.
            if attempt.reused:
                continue
            if attempt.cost is None:
                self._unknown += 1
            else:
                self._cost += attempt.cost
        self._update_bar(outcome.step, counts)

    def describe(self) -> str:
        """Return the progress in one line."""
        expected = self._runner.expected_documents
        # Prefect starts before the flow reads a document.
        if not expected and not self._counts:
            return _STARTING
        in_batches = self._runner.batches_text
        if not self._counts:
            read = plural(expected, "document")
            waits_for = "the first answers"
            if self._runner.loading:
                waits_for = f"{self._runner.loading} to be loaded"
            return f"{read} read, waiting for {in_batches or waits_for}"
        # A copy, since the engine's thread adds steps while this one reads.
        steps = [
            f"{step} {counts['done']} of {self._expected(step) or counts['done']}"
            for step, counts in list(self._counts.items())
        ]
        line = f"{', '.join(steps)}; {usd(self._cost, self._unknown)}"
        return f"{line}; {in_batches}" if in_batches else line

    def _expected(self, step: str) -> int:
        """Return the number of documents, or of groups, that a step will have."""
        if step in self._of_groups:
            return self._runner.expected_groups
        return self._runner.expected_documents

    def _update_bar(self, step: str, counts: Counter[str]) -> None:
        if step not in self._tasks:
            # The first outcome shows that the start is over.
            self._bars.update(self._starting, visible=False)
            self._tasks[step] = self._bars.add_task(step, total=None, note="")
        words = ("escalated", "deferred", "skipped", "waiting")
        note = ", ".join(f"{counts[word]} {word}" for word in words if counts[word])
        # It grows while documents are read.
        total = self._expected(step) or None
        self._bars.update(self._tasks[step], advance=1, total=total, note=note)
