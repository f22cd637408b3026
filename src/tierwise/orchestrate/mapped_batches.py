"""Task runs of a step that are submitted while their batches are read.

A step that is mapped over batches that are still read returns at once, so that the next steps can
be mapped over its futures. A thread reads, and takes each batch through all of these steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from typing import Any, SupportsIndex

from prefect.futures import PrefectFuture, PrefectFutureList

from tierwise.errors import Misuse
from tierwise.orchestrate.batch_reader import BatchReader
from tierwise.records import Batch

READ_AHEAD = 64  # batches that are read and not through their first step, at most
_LOOKS_EVERY_S = 1.0
READING_THREAD = "tierwise reads batches"
Source = Batch | PrefectFuture[Batch]
Submit = Callable[[Source], PrefectFuture[Batch]]
SubmitJoined = Callable[[Sequence[Source]], PrefectFuture[Batch]]


class ReadingThread:
    """Reads batches in a thread, and submits each of them to the steps that are mapped over it."""

    def __init__(
        self,
        batches: BatchReader,
        on_waiting: Callable[[], None],
        parked: Callable[[], int] = lambda: 0,
    ) -> None:
        """`on_waiting` is called once the flow waits for results.

        `parked` returns the number of task runs that wait for provider batches: they do not keep
        others from being read.
        """
        self.is_awaited = False
        self._on_waiting = on_waiting
        self._parked = parked
        self._first_steps: list[MappedBatches] = []
        self._unread = iter(batches)
        self._read: list[Batch] = []
        self._unfinished = 0  # task runs of the first steps
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.changed = threading.Condition(threading.RLock())

    def note_waiting(self) -> None:
        """Note that the flow waits for results, so that its steps are mapped for now."""
        if not self.is_awaited:
            self.is_awaited = True
            self._on_waiting()

    def map(self, submit: Submit, step: str = "") -> MappedBatches:
        """Submit every batch, those to come as well."""
        with self.changed:
            futures = MappedBatches((), self, submit)
            futures.note_step(step, {})
            if not self._read:
                self._read_one()  # it was read already
            # What is wrong with the call is raised here, by the first of them.
            for batch in self._read:
                self._submit_first(futures, batch)
            self._first_steps.append(futures)
            if self._thread is None:
                context = copy_context()
                self._thread = threading.Thread(
                    target=context.run,
                    args=(self._read_all,),
                    name=READING_THREAD,
                    daemon=True,  # a file that takes long keeps no process alive
                )
                self._thread.start()
        return futures

    def stop(self) -> None:
        """Read no further batch."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()

    def wait(self) -> None:
        """Wait until all batches are submitted. Raises the error of reading or of submitting."""
        self.note_waiting()
        with self.changed:
            self.changed.wait_for(lambda: self._ended)
            self.raise_error()

    def has_ended(self) -> bool:
        """Return True if no further batch comes. Raises the error that ended it."""
        self.raise_error()
        return self._ended

    def raise_error(self) -> None:
        """Raise the error of reading or of submitting, if there was one."""
        if self._error:
            raise self._error

    def _read_all(self) -> None:
        try:
            while not self._ended:
                with self.changed:
                    # Looked at again and again, as no one says when task runs are parked.
                    if not self.changed.wait_for(self._has_room, _LOOKS_EVERY_S):
                        continue
                if self._stopped:
                    break
                self._read_one()
        except BaseException as error:  # noqa: BLE001 - raised to who waits for the batches
            self._error = error
        with self.changed:
            self._ended = True
            self.changed.notify_all()

    def _has_room(self) -> bool:
        if self._stopped:
            return True
        ahead = READ_AHEAD * len(self._first_steps)
        return self._unfinished < ahead + self._parked()

    def _read_one(self) -> None:
        """Read a batch and submit it. Reading takes long, so it does not hold the lock."""
        batch = next(self._unread, None)
        with self.changed:
            if batch is None:
                self._ended = True
            if batch is None or self._stopped:
                return
            self._read.append(batch)
            for futures in self._first_steps:
                self._submit_first(futures, batch)
            self.changed.notify_all()

    def _submit_first(self, futures: MappedBatches, batch: Batch) -> None:
        self._unfinished += 1
        future = futures.submit_one(batch)
        future.add_done_callback(self._note_finished)

    def _note_finished(self, _: PrefectFuture[Batch]) -> None:
        with self.changed:
            self._unfinished -= 1
            self.changed.notify_all()


class MappedBatches(PrefectFutureList[Batch]):
    """The futures of a step, in the order of the batches.

    Iterating gives each future once its batch is read. Everything else waits until all are read.
    """

    def __init__(
        self,
        futures: Iterable[PrefectFuture[Batch]] = (),
        thread: ReadingThread | None = None,
        submit: Submit | None = None,
    ) -> None:
        """Without a thread, these are all."""
        super().__init__(futures)
        self._thread = thread
        self._submit = submit
        self._context: Context = copy_context()
        self._next_steps: list[MappedBatches] = []
        self._joins: list[_JoinedBatches] = []
        # by name: the futures of the step that the documents have an outcome of
        self._steps: dict[str, MappedBatches] = {}

    @property
    def thread(self) -> ReadingThread | None:
        """The thread that submits further futures; None where these are all."""
        return self._thread

    def note_step(self, step: str, earlier: Mapping[str, MappedBatches]) -> None:
        """Note which step these are the futures of, and the steps before it."""
        self._steps = {**earlier, step: self}

    def note_branches(self, parts: Iterable[MappedBatches]) -> None:
        """Note the steps of the branches that are joined here.

        Raises Misuse for a step that was mapped for two of them.
        """
        for part in parts:
            for step, mapped in part._steps.items():
                if self._steps.setdefault(step, mapped) is not mapped:
                    raise Misuse(
                        f"join: {step} was mapped for two of the branches; map it once, "
                        "before the branches, or give one of them another name"
                    )

    def map(self, submit: Submit, step: str = "") -> MappedBatches:
        """Submit every future to the next step, those to come as well."""
        if self._thread is None:
            futures = MappedBatches([submit(future) for future in list.__iter__(self)])
            futures.note_step(step, self._steps)
            return futures
        with self._thread.changed:
            futures = MappedBatches((), self._thread, submit)
            futures.note_step(step, self._steps)
            for future in list.__iter__(self):
                futures.submit_one(future)
            self._next_steps.append(futures)
        return futures

    @staticmethod
    def joined(parts: Sequence[MappedBatches], submit: SubmitJoined) -> MappedBatches:
        """Submit the futures of several steps together, batch by batch, those to come as well.

        All are of the same thread. Raises Misuse as `note_branches` does.
        """
        thread = parts[0].thread
        if thread is None:
            raise Misuse("these steps are not mapped over batches that are still read")
        with thread.changed:
            futures = _JoinedBatches(parts, thread, submit)
            futures.note_branches(parts)
            futures.submit_complete()
            for part in parts:
                part._joins.append(futures)
        return futures

    def submit_one(self, source: Source) -> PrefectFuture[Batch]:
        """Submit one batch, or its future, to this step and to those after it."""
        future: PrefectFuture[Batch] = self._context.run(self._submit, source)  # type: ignore[arg-type]
        list.append(self, future)
        for futures in self._next_steps:
            futures.submit_one(future)
        for joined in self._joins:
            joined.submit_complete()
        return future

    def __iter__(self) -> Iterator[PrefectFuture[Batch]]:
        if self._thread:
            self._thread.note_waiting()
        position = 0
        while self._reaches(position):
            yield list.__getitem__(self, position)
            position += 1

    def __next__(self) -> PrefectFuture[Batch]:
        # Prefect's class claims to be an iterator, and is a list.
        raise TypeError("a list of futures is not an iterator; use `iter(futures)`")

    def _reaches(self, position: int) -> bool:
        """Wait for a future; return False if the futures end before it."""
        thread = self._thread
        if thread is None:
            return list.__len__(self) > position
        with thread.changed:
            while not thread.has_ended() and list.__len__(self) <= position:
                thread.changed.wait()
            return list.__len__(self) > position

    def _complete(self) -> list[PrefectFuture[Batch]]:
        return list(iter(self))

    # A list's own methods look at what is there so far.

    def __len__(self) -> int:
        return len(self._complete())

    def __bool__(self) -> bool:
        return self._reaches(0)

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        return self._complete()[index]

    def __contains__(self, item: object) -> bool:
        return item in self._complete()

    def __eq__(self, other: object) -> bool:
        return self._complete() == other

    __hash__ = None  # type: ignore[assignment] # as lists have it

    def __add__(self, other: Any) -> Any:
        return self._complete() + list(other)

    def __radd__(self, other: Any) -> Any:
        return list(other) + self._complete()

    def __reversed__(self) -> Iterator[PrefectFuture[Batch]]:
        return reversed(self._complete())

    def __repr__(self) -> str:
        return repr(self._complete())

    def __reduce__(self) -> tuple[Any, ...]:
        return (PrefectFutureList, (self._complete(),))

    def copy(self) -> list[PrefectFuture[Batch]]:
        """Return a list of all futures."""
        return self._complete()

    def index(self, *arguments: Any) -> int:
        """Return the position of a future."""
        return self._complete().index(*arguments)

    def count(self, value: Any) -> int:
        """Return how often a future is there."""
        return self._complete().count(value)


class _JoinedBatches(MappedBatches):
    """The futures of joined steps: one for each batch that all of them were submitted for."""

    def __init__(
        self,
        parts: Sequence[MappedBatches],
        thread: ReadingThread,
        submit: SubmitJoined,
    ) -> None:
        super().__init__((), thread, submit)  # type: ignore[arg-type] # gets a future of each
        self._parts = parts

    def submit_complete(self) -> None:
        """Submit the batches that every part has by now. Holds the thread's lock."""
        fewest = min(list.__len__(part) for part in self._parts)
        while list.__len__(self) < fewest:
            position = list.__len__(self)
            sources = [list.__getitem__(part, position) for part in self._parts]
            self.submit_one(sources)  # type: ignore[arg-type]
