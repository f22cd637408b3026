"""Task runs that wait for provider batches leave their place to others, up to a number."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from tierwise.cascade.batch_waits import BatchWaits
from tierwise.orchestrate import ready_queue
from tierwise.orchestrate.ready_queue import Place, ReadyQueue

PATIENCE_S = 30.0


class Waiting:
    """Calls of a queue that each wait for a provider batch until `end` is set."""

    def __init__(self, queue: ReadyQueue) -> None:
        self.queue = queue
        self.begun: list[Place] = []
        self.end = threading.Event()
        self.changed = threading.Condition()

    def submit(self, place: Place, *inputs: Future[None]) -> Future[None]:
        waits = BatchWaits(self.queue.parking(place))

        def call() -> None:
            with waits.one(), waits.one():
                with self.changed:
                    self.begun.append(place)
                    self.changed.notify_all()
                assert self.end.wait(PATIENCE_S)

        return self.queue.submit(place, inputs, call)

    def until(self, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= number, PATIENCE_S)


def test_batches_begin_while_others_wait_for_a_provider() -> None:
    parked: list[int] = []
    queue = ReadyQueue(1, may_begin=lambda _: True, on_parked=parked.append)
    waiting = Waiting(queue)
    futures = [waiting.submit(Place(0, number)) for number in range(10)]
    waiting.until(10)
    assert max(parked) == 10
    waiting.end.set()
    for future in futures:
        future.result(PATIENCE_S)
    queue.shutdown()
    assert parked[-1] == 0


def test_only_so_many_wait_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_queue, "MOST_PARKED", 3)
    parked: list[int] = []
    queue = ReadyQueue(1, may_begin=lambda _: True, on_parked=parked.append)
    waiting = Waiting(queue)
    futures = [waiting.submit(Place(0, number)) for number in range(10)]
    # Three are parked, and a fourth has the one place of those that run.
    waiting.until(4)
    waiting.end.set()
    for future in futures:
        future.result(PATIENCE_S)
    queue.shutdown()
    assert max(parked) == 3
    assert len(waiting.begun) == 10
