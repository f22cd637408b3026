"""The state that this process keeps between the calls of flows and tasks.

Everything that lives longer than one call is here: one engine a project, the recorded runs under
way, the runs of other processes that this one works for, and a dry run.
"""

from __future__ import annotations

import atexit
import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierwise.engine import Engine, StepRunner
from tierwise.errors import Misuse
from tierwise.orchestrate.preload import preload
from tierwise.orchestrate.secrets import variables
from tierwise.project import Project

if TYPE_CHECKING:
    from tierwise.orchestrate.runs import Run


_COLLECT_AFTER = 10_000  # new objects


@dataclass(frozen=True, slots=True)
class DryRun:
    """A flow whose function runs in this thread, with its steps going to `runner`."""

    runner: StepRunner
    flow: str
    parameters: Mapping[str, Any]


class ProcessState:
    """The engines and runs of one process. Thread-safe, except for dry runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[Path, Engine] = {}  # by project root
        # under way, by flow run id (None outside Prefect); the last one is the innermost
        self._runs: dict[str | None, list[Run]] = {}
        self._ended: set[str] = set()  # flow runs whose block has ended
        self._joined: dict[Path, Run] = {}  # runs of other processes, by manifest
        self._task_runs: Counter[str] = Counter()  # submitted, by flow run
        self._dry_runs: list[DryRun] = []  # nested; the last one is under way

    # ---- engines

    def engine(self) -> Engine:
        """Return the engine for the project around the current folder, made at the first call."""
        project = Project.find()
        with self._lock:
            engine = self._engines.get(project.root)
            if engine is None:
                preload()
                engine = Engine(project, variables(project))
                self._engines[project.root] = engine
                atexit.register(engine.close)
                _collect_less()
            return engine

    @contextmanager
    def using(self, engine: Engine) -> Iterator[None]:
        """Have steps and flows of a project use this engine inside this block."""
        root = engine.project.root
        with self._lock:
            before = self._engines.get(root)
            self._engines[root] = engine
        try:
            yield
        finally:
            with self._lock:
                del self._engines[root]
                if before:
                    self._engines[root] = before

    # ---- dry runs

    @property
    def dry_run(self) -> DryRun | None:
        """The dry run that is under way, if any."""
        return self._dry_runs[-1] if self._dry_runs else None

    @contextmanager
    def in_dry_run(self, dry_run: DryRun) -> Iterator[None]:
        """Send the steps of flows to a dry run's engine inside this block."""
        self._dry_runs.append(dry_run)
        try:
            yield
        finally:
            self._dry_runs.pop()

    # ---- runs

    def begin_run(self, flow_run_id: str | None, run: Run) -> None:
        """Note that a run is under way."""
        self._runs.setdefault(flow_run_id, []).append(run)

    def end_run(self, flow_run_id: str | None) -> None:
        """Note that a run has ended."""
        runs = self._runs[flow_run_id]
        runs.pop()
        if not runs:
            del self._runs[flow_run_id]
            if flow_run_id:  # without Prefect, another run may follow at any time
                self._ended.add(flow_run_id)

    def run(self, flow_run_id: str | None) -> Run:
        """Return the run that is under way. Raises Misuse when there is none."""
        runs = self._runs.get(flow_run_id)
        if runs:
            return runs[-1]
        if flow_run_id in self._ended:
            raise Misuse(
                "the run is over, so nothing more is asked; run it again to go on"
            )
        raise Misuse(
            "steps run inside `with recorded_run():`, so that their cost is on record"
        )

    def joined_run(self, manifest: Path, join: Callable[[], Run]) -> Run:
        """Return another process's run, joined at the first call; forget those that are over."""
        with self._lock:
            for other in list(self._joined):
                if not other.exists():
                    del self._joined[other]
            if manifest not in self._joined:
                self._joined[manifest] = join()
            return self._joined[manifest]

    # ---- task runs

    def count_task_runs(self, flow_run_id: str | None, number: int = 1) -> None:
        """Count task runs that a flow run submitted, wherever they run."""
        self._task_runs[flow_run_id or ""] += number

    def take_task_runs(self, flow_run_id: str) -> int:
        """Return the number of task runs that a flow run submitted, and forget it."""
        return self._task_runs.pop(flow_run_id, 0)


def _collect_less() -> None:
    """Keep the garbage collector from a sixth of a document's CPU time.

    Full collections would walk through everything that was imported. A call makes some hundred
    objects that live until its answer, so collections after every 700 objects find nothing.
    """
    gc.freeze()
    first, *others = gc.get_threshold()
    if 0 < first < _COLLECT_AFTER:  # 0 is: never
        gc.set_threshold(_COLLECT_AFTER, *others)


STATE = ProcessState()


def engine() -> Engine:
    """Return the engine of this process for the project around the current folder."""
    return STATE.engine()


def step_runner() -> StepRunner:
    """Return the engine that steps go to: that of a dry run, else the process's own."""
    dry_run = STATE.dry_run
    return dry_run.runner if dry_run else STATE.engine()


def using(engine: Engine) -> AbstractContextManager[None]:
    """Have steps and flows of a project use this engine inside this block."""
    return STATE.using(engine)
