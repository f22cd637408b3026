"""Writes an ONNX file: a graph of nodes and its constant tensors.

ONNX is a protocol buffer. The few messages that a graph needs are written here, as the `onnx`
package would be one more dependency, and its output differs between its versions.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT = 1
INT64 = 7
_DATA_TYPES = {"float32": FLOAT, "uint8": 2, "int8": 3, "int32": 6, "int64": INT64}
# the types of an attribute
_A_FLOAT = 1
_A_INT = 2
_A_INTS = 7
_IR_VERSION = 8
_OPSET = 17

Attribute = int | float | Sequence[int]


class Graph:
    """A graph that grows by nodes and constants, each with a name of its own."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._names = 0

    def constant(self, value: NDArray[Any]) -> str:
        """Add a tensor, and return its name."""
        name = self._next_name("c")
        kind = _DATA_TYPES[value.dtype.name]
        little_endian = value.astype(value.dtype.newbyteorder("<"))
        parts = [_integer(1, size) for size in value.shape]
        parts += [_integer(2, kind), _text(8, name)]
        parts.append(_bytes(9, little_endian.tobytes()))
        self._constants.append(b"".join(parts))
        return name

    def node(
        self, operator: str, *inputs: str, outputs: int = 1, **attributes: Attribute
    ) -> Any:
        """Add a node, and return the name of its output; a list of them for several."""
        names = [self._next_name("v") for _ in range(outputs)]
        parts = [_text(1, name) for name in inputs]
        parts += [_text(2, name) for name in names]
        parts += [_text(3, names[0]), _text(4, operator)]
        parts += [_bytes(5, _attribute(*pair)) for pair in attributes.items()]
        self._nodes.append(b"".join(parts))
        return names[0] if outputs == 1 else names

    def rename(self, name: str, as_name: str) -> None:
        """Give a value the name by which it is an output of the graph."""
        self._nodes.append(
            b"".join([_text(1, name), _text(2, as_name), _text(4, "Identity")])
        )

    def write(
        self, path: Path, inputs: Mapping[str, Value], outputs: Mapping[str, Value]
    ) -> None:
        """Write the file. Equal graphs give equal bytes."""
        parts = [_bytes(1, node) for node in self._nodes]
        parts.append(_text(2, "tierwise"))
        parts += [_bytes(5, constant) for constant in self._constants]
        parts += [_bytes(11, _value_info(*pair)) for pair in inputs.items()]
        parts += [_bytes(12, _value_info(*pair)) for pair in outputs.items()]
        model = [
            _integer(1, _IR_VERSION),
            _text(2, "tierwise"),
            _bytes(7, b"".join(parts)),
            _bytes(8, _integer(2, _OPSET)),
        ]
        path.write_bytes(b"".join(model))

    def _next_name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}{self._names}"


Value = tuple[int, Sequence[str | int]]  # data type; sizes, or the names of free ones


def _attribute(name: str, value: Attribute) -> bytes:
    parts = [_text(1, name)]
    if isinstance(value, float):
        parts += [_fixed32(2, value), _integer(20, _A_FLOAT)]
    elif isinstance(value, int):
        parts += [_integer(3, value), _integer(20, _A_INT)]
    else:
        parts += [_integer(8, each) for each in value]
        parts.append(_integer(20, _A_INTS))
    return b"".join(parts)


def _value_info(name: str, value: Value) -> bytes:
    kind, sizes = value
    shape = b"".join(_bytes(1, _dimension(size)) for size in sizes)
    tensor = _integer(1, kind) + _bytes(2, shape)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _dimension(size: str | int) -> bytes:
    return _text(2, size) if isinstance(size, str) else _integer(1, size)


# ---- protocol buffers: a field is its number and type, then its value ---------------------------


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written as 64 bits
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _fixed32(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return b"".join([_varint(field << 3 | 2), _varint(len(value)), value])


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
