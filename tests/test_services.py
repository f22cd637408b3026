"""Processes that stay: found again by the lock they hold, ended kindly or by force."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from tierwise.orchestrate.services import Service, address, server_of, write_address

SLEEPS = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def started(service: Service, command: list[str], cwd: Path) -> int:
    service.start(command, os.environ, cwd)
    while "up" not in service.log.read_text():
        time.sleep(0.02)
    pid = service.pid()
    assert pid
    return pid


def test_a_service_lives_on_without_us_and_ends_when_told(tmp_path: Path) -> None:
    service = Service(tmp_path / "services", "sleeper")
    assert service.pid() is None
    pid = started(service, SLEEPS, tmp_path)
    assert Service(tmp_path / "services", "sleeper").pid() == pid
    assert os.getsid(pid) == pid  # the terminal's Ctrl-C does not reach it
    service.stop()
    assert service.pid() is None
    service.stop()  # once more does nothing


def test_the_number_of_a_process_that_died_is_not_taken_for_it(tmp_path: Path) -> None:
    """The pid file stays behind a crash, with a number that may be another process's by now."""
    service = Service(tmp_path, "sleeper")
    os.kill(started(service, SLEEPS, tmp_path), signal.SIGKILL)
    while service.pid():
        time.sleep(0.02)
    (tmp_path / "sleeper.pid").write_text(str(os.getpid()))
    assert service.pid() is None
    service.stop()


def test_one_that_does_not_listen_is_ended_by_force(tmp_path: Path) -> None:
    service = Service(tmp_path, "deaf")
    started(service, [sys.executable, "-c", DEAF], tmp_path)
    service.stop(seconds=0.2)
    assert service.pid() is None


def test_an_address_counts_only_while_its_server_lives(tmp_path: Path) -> None:
    write_address(tmp_path, "http://127.0.0.1:4999")
    assert address(tmp_path) is None
    started(server_of(tmp_path), SLEEPS, tmp_path)
    assert address(tmp_path) == "http://127.0.0.1:4999"
    server_of(tmp_path).stop()
    assert address(tmp_path) is None
