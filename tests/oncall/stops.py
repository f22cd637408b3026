"""Stopping what runs: a command on a terminal or without one, and how it ended."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from tests.oncall.bed import Bed, until

CTRL_C = b"\x03"
# A request that is on its way at the signal still arrives, on a machine where all is slow.
ON_ITS_WAY_S = 1.0
ENDS_WITHIN_S = 60.0
_EXIT_CODE = 130
GONE_WITHIN_S = 10.0

Way = Literal["process", "group", "keyboard or closing"]
# A run takes about ten seconds until its first call, on a quiet machine.
_LONGEST_AFTER_START_S = 20.0
_LONGEST_AFTER_CALL_S = 8.0
_FIRST_CALL_WITHIN_S = 180.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Stop:
    """One stop as it is drawn: which signal, to whom, where and when."""

    number: signal.Signals
    way: Way
    on_terminal: bool
    after_s: float  # from the start of the command, or
    after_a_call: bool  # from its first call

    def __str__(self) -> str:
        """Return it in words."""
        place = "terminal" if self.on_terminal else "no terminal"
        means = self.way
        if self.way == "keyboard or closing":
            typed = self.number == signal.SIGINT
            return "Ctrl-C typed, terminal" if typed else "terminal closed"
        return f"{self.number.name} to the {means}, {place}"

    def moment(self) -> str:
        """Return the moment in words."""
        event = "first call" if self.after_a_call else "start"
        return f"{self.after_s:.1f} s after the {event}"


@dataclass(frozen=True)
class Ending:
    """How a command ended after its stop."""

    what: str
    after: str  # how long, and after what
    calls_before: int
    calls_on_their_way: int  # that came within the first second after
    calls_later: int
    seconds: float  # from the signal to the end of the process
    code: int | None
    left: tuple[str, ...]  # processes
    audit: bool
    text: str = ""

    def cells(self) -> list[str]:
        """The line in the table of stops."""
        return [
            self.what,
            self.after,
            str(self.calls_before),
            str(self.calls_on_their_way),
            str(self.calls_later),
            f"{self.seconds:.1f}",
            "" if self.code is None else str(self.code),
            str(len(self.left)),
            "clean" if self.audit else "FAILS",
        ]


HEAD = (
    "stop",
    "when",
    "calls so far",
    "within 1 s",
    "later",
    "s to the end",
    "exit code",
    "processes left",
    "audit verify",
)


def draws(seed: int, number: int) -> list[Stop]:
    """Random stops: a third of them anywhere from the start on, the others between calls."""
    chance = random.Random(seed)
    drawn = [_draw(chance, after_a_call=part % 3 > 0) for part in range(number)]
    chance.shuffle(drawn)
    return drawn


def _draw(chance: random.Random, *, after_a_call: bool) -> Stop:
    longest_s = _LONGEST_AFTER_CALL_S if after_a_call else _LONGEST_AFTER_START_S
    on_terminal = chance.random() < 0.5
    number = chance.choice(_SIGNALS)
    ways: list[Way] = ["process", "group"]
    if on_terminal and number != signal.SIGTERM:
        ways = ["process", "keyboard or closing", "keyboard or closing"]
    return Stop(
        number=number,
        way=chance.choice(ways),
        on_terminal=on_terminal,
        after_s=chance.uniform(0, longest_s),
        after_a_call=after_a_call,
    )


class Command:
    """A command whose output is read all the time, as a terminal does."""

    def __init__(self, bed: Bed, *arguments: str, on_terminal: bool) -> None:
        self._output, side = pty.openpty() if on_terminal else os.pipe()
        self._parts: list[bytes] = []
        self.begun = time.monotonic()
        self.process = bed.start(
            *arguments,
            stdin=side if on_terminal else subprocess.DEVNULL,
            stdout=side,
            stderr=side,
            preexec_fn=_take_terminal if on_terminal else None,
        )
        os.close(side)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the terminal's processes are gone, or it was closed
            while part := os.read(self._output, 65536):
                self._parts.append(part)

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return b"".join(self._parts).decode(errors="replace")

    def stop(self, stop: Stop) -> None:
        """Send the signal, press the key or close the terminal."""
        with suppress(ProcessLookupError):
            if stop.way == "process":
                self.process.send_signal(stop.number)
            elif stop.way == "group":
                os.killpg(self.process.pid, stop.number)
            elif stop.number == signal.SIGINT:
                os.write(self._output, CTRL_C)
            else:
                os.close(self._output)
                self._output = -1

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        """Read what is left, and close."""
        self._reader.join(5)
        if self._output >= 0:
            os.close(self._output)
            self._output = -1


def _take_terminal() -> None:
    """Make standard input the terminal that controls this new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def stop_command(bed: Bed, stop: Stop, *arguments: str) -> Ending | None:
    """Start a command, stop it, and see how it ends; None if it had ended before."""
    command = Command(bed, *arguments, on_terminal=stop.on_terminal)
    try:
        if stop.after_a_call:
            before = bed.provider.arrived()
            until(
                lambda: bed.provider.arrived() > before or command.has_ended(),
                _FIRST_CALL_WITHIN_S,
                lambda: command.text,
            )
        with suppress(subprocess.TimeoutExpired):
            command.process.wait(stop.after_s)
            return None
        at = time.time()
        command.stop(stop)
        seconds = _seconds_to_the_end(command.process)
        seconds_until_gone(bed)
        command.close()
    finally:
        command.process.kill()
    return ending(
        bed,
        str(stop),
        at=at,
        after=stop.moment(),
        seconds=seconds,
        code=command.process.wait(),
        text=command.text,
    )


def _seconds_to_the_end(process: subprocess.Popen[bytes]) -> float:
    begun = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDS_WITHIN_S)
    return time.monotonic() - begun


def seconds_until_gone(
    bed: Bed, but: Iterable[int] = (), longest_s: float = GONE_WITHIN_S
) -> float:
    """Wait a little until all processes of the bed are gone but these; give the seconds."""
    begun = time.monotonic()
    while set(bed.processes()) - set(but):
        if time.monotonic() - begun > longest_s:
            break
        time.sleep(0.1)
    return time.monotonic() - begun


def ending(
    bed: Bed,
    what: str,
    *,
    at: float,
    after: str,
    seconds: float,
    code: int | None,
    text: str = "",
    but: Iterable[int] = (),
) -> Ending:
    """How something ended, by the provider's invoice, the processes and the audit trail."""
    left = bed.processes()
    for pid in but:
        left.pop(pid, None)
    later = [line.came - at for line in bed.provider.invoice() if line.came > at]
    on_their_way = [seconds for seconds in later if seconds <= ON_ITS_WAY_S]
    before = len(bed.provider.invoice()) - len(later)
    return Ending(
        what=what,
        after=after,
        calls_before=before,
        calls_on_their_way=len(on_their_way),
        calls_later=len(later) - len(on_their_way),
        seconds=seconds,
        code=code,
        left=tuple(left.values()),
        audit=audit_is_clean(bed),
        text=text,
    )


def audit_is_clean(bed: Bed) -> bool:
    """Whether `tierwise audit verify` exits with 0."""
    verify = bed.start(
        "audit", "verify", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return verify.wait(120) == 0


def lines(endings: Iterable[Ending]) -> Iterator[str]:
    """The table of stops."""
    yield "| " + " | ".join(HEAD) + " |"
    yield "|" + "---|" * len(HEAD)
    for end in endings:
        yield "| " + " | ".join(end.cells()) + " |"


def _was_killed(end: Ending) -> bool:
    """Whether a signal ended it before it had begun to listen: nothing was called, nothing said."""
    return bool(end.code and end.code < 0 and not end.text.strip())


def faults(end: Ending) -> list[str]:
    """What is wrong with an ending."""
    found = []
    if end.calls_later:
        found.append(f"{end.calls_later} calls later than a second after the stop")
    if end.seconds > ENDS_WITHIN_S - 1:
        found.append("it did not end")
    if end.left:
        found.append(f"left running: {end.left}")
    if not end.audit:
        found.append("audit verify fails")
    # Before Python has read the program, Ctrl-C is Python's own.
    has_begun = end.code != -signal.SIGINT
    if has_begun and end.code not in (None, 0, _EXIT_CODE) and not _was_killed(end):
        found.append(f"exit code {end.code}")
    if has_begun and "Traceback" in end.text:
        found.append("a stack trace is printed")
    if found:
        found.append(f"output: {end.text[-3000:]}")
    return [f"{end.what}, {end.after}: {fault}" for fault in found]
