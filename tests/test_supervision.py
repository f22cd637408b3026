"""The supervisor: what it starts again and what it leaves, leases of slots, and who has a port."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from filelock import FileLock
from prefect.server.concurrency.lease_storage import ConcurrencyLimitLeaseMetadata

from tests.kit.standin import unused_address
from tierwise.cli.server_address import address_for
from tierwise.errors import Misuse
from tierwise.ledger import Ledger, RunInfo
from tierwise.ledger.processes import gathering, is_dead, new_process_identity
from tierwise.orchestrate import lease_storage, log_rotation, supervision
from tierwise.orchestrate.ports import is_taken, listener
from tierwise.orchestrate.services import (
    FOLDER,
    Service,
    server_of,
    supervisor_of,
    worker_of,
    write_address,
)
from tierwise.orchestrate.supervision import (
    LOCK,
    Supervisor,
    end_alone,
    forget_lease_lock,
    is_current,
    start,
    want,
    wanted,
)

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


class Watched:
    """A project's folder under a supervisor whose services only sleep."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / FOLDER).mkdir(parents=True)
        self.said: list[str] = []
        self.started: list[str] = []
        self.looks = 0
        starts = {"server": self.start_server, "worker": self.start_worker}
        self.supervisor = Supervisor(root, self.look, starts, self.said.append)

    def look(self) -> None:
        """Count the looks for dead runs."""
        self.looks += 1

    def start_server(self) -> None:
        """Start the server."""
        self.started.append("server")
        start(server_of(self.root), SLEEPS, {}, self.root)

    def start_worker(self) -> None:
        """Start the worker."""
        self.started.append("worker")
        start(worker_of(self.root), SLEEPS, {}, self.root)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    for service in (server_of(tmp_path), worker_of(tmp_path), supervisor_of(tmp_path)):
        end_alone(service)


def kill(service: Service) -> None:
    """End a service as a power cut does."""
    pid = service.pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    while service.pid() is not None:
        time.sleep(0.01)


def test_what_is_wanted_and_dead_is_started_and_the_rest_is_left(
    watched: Watched,
) -> None:
    """A server that `up --no-worker` or systemd keeps has no worker of ours beside it."""
    watched.supervisor.once(0)
    assert watched.started == []
    want(watched.root, {"server"})
    watched.supervisor.once(0)
    assert watched.started == ["server"]
    watched.supervisor.once(1000)
    assert watched.started == ["server"]
    kill(server_of(watched.root))
    watched.supervisor.once(2000)
    assert watched.started == ["server", "server"]
    assert watched.said == ["server: died, started again"] * 2
    assert watched.looks == 4


def test_one_that_dies_again_at_once_is_started_less_and_less_often(
    watched: Watched,
) -> None:
    want(watched.root, {"worker"})
    times = []
    for now in range(0, 400, 10):
        before = len(watched.started)
        watched.supervisor.once(now)
        if len(watched.started) > before:
            times.append(now)
            kill(worker_of(watched.root))
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] > 4 * pauses[0]


def test_a_log_is_rotated_under_the_process_that_writes_it(watched: Watched) -> None:
    server = server_of(watched.root)
    # A line for each one that it reads from a pipe.
    lines = watched.root / "lines"
    os.mkfifo(lines)
    writes = "for line in open('lines'): print(line, end='', flush=True)"
    start(server, [sys.executable, "-c", writes], {}, watched.root)
    too_long = log_rotation.MAX_BYTES + 1
    with lines.open("w") as pipe:
        for number in range(1, log_rotation.KEPT + 3):
            # A log that has grown for long: a hole takes no room on the disk.
            os.truncate(server.log, too_long)
            watched.supervisor.once(0)
            assert server.log.stat().st_size == 0
            pipe.write(f"line {number}\n")
            pipe.flush()
            while server.log.stat().st_size == 0:
                assert server.pid() is not None
                time.sleep(0.01)
            # Its descriptor goes on at the beginning, and leaves no hole.
            assert server.log.read_text() == f"line {number}\n"
    rotated = sorted(server.folder.glob("server.log.*"))
    assert len(rotated) == log_rotation.KEPT
    assert rotated[0].read_bytes().startswith(b"line 5\n")
    assert rotated[-1].read_bytes().startswith(b"line 2\n")
    assert {path.stat().st_mode & 0o777 for path in rotated} == {0o600}


def test_a_log_that_cannot_be_rotated_stays_and_is_said_once(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_of(watched.root)
    worker.log.write_text("the last words\n")
    os.truncate(worker.log, log_rotation.MAX_BYTES + 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_rotation.shutil, "copyfileobj", full)
    watched.supervisor.once(0)
    watched.supervisor.once(10)
    assert worker.log.read_bytes().startswith(b"the last words\n")
    assert [path.name for path in worker.folder.glob("worker.log.*")] == []
    said = [line for line in watched.said if "rotated" in line]
    assert said == ["the logs cannot be rotated: [Errno 28] No space left on device"]


def test_nothing_is_started_while_up_or_down_is_at_work(watched: Watched) -> None:
    want(watched.root, {"server"})
    with FileLock(watched.root / FOLDER / LOCK):
        watched.supervisor.once(0)
    assert watched.started == []
    watched.supervisor.once(0)
    assert watched.started == ["server"]


def test_a_start_that_fails_is_said_and_tried_again(watched: Watched) -> None:
    def fails() -> None:
        raise OSError("no memory")

    said: list[str] = []
    want(watched.root, {"server"})
    supervisor = Supervisor(watched.root, watched.look, {"server": fails}, said.append)
    supervisor.once(0)
    supervisor.once(100)
    assert said.count("server: not started: no memory") == 2


def test_it_ends_when_nothing_is_wanted_any_more(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`down` forgets what is wanted before it ends anything."""
    monkeypatch.setattr(supervision, "_EVERY_S", 0.0)
    want(watched.root, {"server"})

    def forget() -> None:
        want(watched.root, set())

    supervisor = Supervisor(watched.root, forget, {}, watched.said.append)
    supervisor.run(lambda: bool(wanted(watched.root)))
    assert wanted(watched.root) == set()


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "PREFECT_API_AUTH_STRING"])
def test_a_worker_is_of_the_address_and_the_password_that_it_was_started_for(
    watched: Watched, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "one")
    watched.start_worker()
    assert is_current(worker_of(watched.root))
    monkeypatch.setenv(name, "two")
    assert not is_current(worker_of(watched.root))
    # An older version of tierwise noted neither.
    for file in (watched.root / FOLDER).glob("worker.*"):
        if file.suffix not in (".pid", ".log"):
            file.unlink()
    assert not is_current(worker_of(watched.root))


def test_a_service_in_the_foreground_is_found_and_is_there_once(
    watched: Watched,
) -> None:
    """The program that it becomes keeps number and lock."""
    code = (
        "import os, pathlib, sys; from tierwise.orchestrate.services import server_of; "
        "root = pathlib.Path.cwd(); "
        "server_of(root).become(sys.argv[1:], os.environ, root)"
    )
    command = [sys.executable, "-c", code, *SLEEPS]
    first = subprocess.Popen(command, cwd=watched.root)
    service = server_of(watched.root)
    while not service.pid():  # the lock comes before the number
        time.sleep(0.02)
    assert service.pid() == first.pid
    assert service.is_in_foreground()
    second = subprocess.run(
        command, cwd=watched.root, capture_output=True, text=True, check=False
    )
    assert f"the server runs already (process {first.pid})" in second.stderr
    first.kill()
    first.wait()
    assert service.pid() is None
    watched.start_server()
    assert not service.is_in_foreground()


def test_the_program_on_a_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        assert not is_taken(port)
        other.listen()
        assert is_taken(port)
        assert listener(port).endswith(f"(process {os.getpid()})")
    assert listener(port) == "another program"


def test_an_owner_whose_number_another_process_has_is_dead() -> None:
    """As after the restart of a container, where numbers come back."""
    owner = new_process_identity()
    assert not is_dead(owner)
    words = owner.split(" ")
    assert is_dead(" ".join([*words[:3], "1"]))
    # Owners of older versions have no start.
    assert not is_dead(" ".join(words[:3]))


def test_a_claim_of_an_owner_whose_number_another_process_has_is_dead() -> None:
    """Its calls are free at once, those that it gathered for a batch too."""
    owner = new_process_identity()
    words = owner.split(" ")
    reused = " ".join([*words[:3], "1"])
    for number in (1, 12):
        claim = f"{owner} {number}"
        of_reused = f"{reused} {number}"
        assert not is_dead(claim)
        assert not is_dead(gathering(claim))
        assert is_dead(of_reused)
        assert is_dead(gathering(of_reused))
    assert not is_dead(gathering(" ".join(words[:3])))


class Leases:
    """Leases of slots as files, with a clock for the server's being away."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage = lease_storage.ConcurrencyLeaseStorage(folder)
        self.now = 1_000_000.0
        monkeypatch.setattr(lease_storage.time, "time", lambda: self.now)
        monkeypatch.setattr(lease_storage._Awake, "since", None)

    def expired_after(self, seconds: int, every: int = 15) -> int:
        """Ask as Prefect does for so long; return how many leases are over then."""
        found: list[object] = []
        for _ in range(0, seconds, every):
            self.now += every
            found = list(asyncio.run(self.storage.read_expired_lease_ids()))
        return len(found)


@pytest.fixture
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leases:
    return Leases(tmp_path, monkeypatch)


def test_a_lease_is_taken_away_only_when_its_holder_had_time_to_come_back(
    leases: Leases,
) -> None:
    """After the server's start, and after every break: the machine was suspended."""

    async def one_is_over() -> None:
        ttl = timedelta(seconds=-1)
        await leases.storage.create_lease([uuid4()], ttl)

    asyncio.run(one_is_over())
    assert leases.expired_after(600) == 0
    assert leases.expired_after(600) == 1
    leases.now += 300
    assert leases.expired_after(600) == 0
    assert leases.expired_after(600) == 1


def test_a_server_that_starts_waits_for_no_lock_of_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reboot the number in it is that of another living process, such as this one."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    lock = tmp_path / "concurrency_leases" / "expirations.lock"
    lock.parent.mkdir()
    lock.write_text(str(os.getpid()))
    forget_lease_lock(tmp_path)
    storage = lease_storage.ConcurrencyLeaseStorage(lock.parent)

    async def creates_one() -> None:
        await storage.create_lease([uuid4()], timedelta(seconds=60))

    asyncio.run(asyncio.wait_for(creates_one(), 20))


@pytest.mark.parametrize(("holder", "hours"), [(None, 1), ("task_run", 0)])
def test_the_lease_of_a_deployments_run_is_renewed_for_an_hour(
    leases: Leases, holder: str | None, hours: int
) -> None:
    """A suspended machine keeps its slot as long as the ledger keeps its lease."""
    named = {"type": holder, "id": str(uuid4())} if holder else None
    metadata = ConcurrencyLimitLeaseMetadata.model_validate(
        {"slots": 1, "holder": named}
    )

    async def renewed() -> datetime:
        ttl = timedelta(seconds=300)
        lease = await leases.storage.create_lease([uuid4()], ttl, metadata)
        # A server that starts again finds it.
        storage = lease_storage.ConcurrencyLeaseStorage(leases.storage.storage_path)
        assert await storage.renew_lease(lease.id, ttl)
        found = await storage.read_lease(lease.id)
        assert found
        return found.expiration

    left = asyncio.run(renewed()) - datetime.now(UTC)
    assert (left > timedelta(minutes=50)) == bool(hours)


def test_a_server_leaves_the_port_of_current_runs_only_by_force(tmp_path: Path) -> None:
    """They report to it, wherever the next server is."""
    old, new = (unused_address() for _ in range(2))
    port = int(new.rpartition(":")[2])
    (tmp_path / "routing_rules").mkdir()

    def chosen(port: int | None, *, force: bool = False) -> str:
        return address_for(tmp_path, port, force=force)

    assert chosen(port) == new
    write_address(tmp_path, old)
    assert chosen(None) == old
    assert chosen(port) == new
    with Ledger.open(None, root=tmp_path) as ledger:
        info = RunInfo(
            id="run-1",
            flow="inbox",
            policy_hash="p",
            tierwise_version="0",
            started_at=time.time(),
            flow_run_id=str(uuid4()),
        )
        ledger.start_run(info)
        with pytest.raises(Misuse, match="under way: run-1 ") as refused:
            chosen(port)
        assert f"report to {old}" in str(refused.value)
        assert f"process {os.getpid()} " in str(refused.value)
        assert chosen(None) == old
        assert chosen(int(old.rpartition(":")[2])) == old
        assert chosen(port, force=True) == new
        ledger.finish_run("run-1", "completed")
    assert chosen(port) == new
