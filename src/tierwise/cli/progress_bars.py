"""Progress bars on stderr."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from tierwise.cli.output import console


class CountBar:
    """A bar for one activity after the other, called with the activity, the done and the total."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console(err=True),
            transient=True,
        )
        self._task = self._progress.add_task("")

    def __enter__(self) -> CountBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, activity: str, done: int, total: int) -> None:
        """Show an activity's progress."""
        if done == 0:
            self._progress.reset(self._task, description=activity, total=total)
        # It starts at the first call and not before, as a question may come first.
        self._progress.start()
        self._progress.update(self._task, completed=done)


class DownloadBar:
    """A bar for one download, called with the bytes so far and in all."""

    def __init__(self, name: str) -> None:
        self._progress = Progress(
            TextColumn(name),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console(err=True),
        )
        self._task = self._progress.add_task(name, total=None)

    def __enter__(self) -> DownloadBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show the bytes so far."""
        self._progress.update(self._task, completed=done, total=total)
