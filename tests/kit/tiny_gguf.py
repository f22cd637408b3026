"""A GGUF file of 100 kB that llama.cpp loads in no time: a real transformer with random weights, talking gibberish."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

WIDTH, HEADS, FEED_FORWARD, CONTEXT = 32, 2, 64, 2048
ALIGNMENT = 32
UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
)


def write_tiny_gguf(path: Path, seed: int = 0) -> Path:
    """Write the file and return its path. Other seeds give other weights."""
    vocabulary = [*_byte_characters(), "ab", "<|end|>"]
    metadata = _metadata(vocabulary)
    tensors = _tensors(len(vocabulary))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(_string(key) + value for key, value in metadata.items())
    random, data = Random(seed), b""
    for name, shape in tensors.items():
        head += _string(name) + struct.pack(
            f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data)
        )
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = (
            (random.gauss(0, 0.3) for _ in range(count))
            if len(shape) > 1
            else (1.0 for _ in range(count))
        )
        data += _padded(struct.pack(f"<{count}f", *values))
    path.write_bytes(_padded(head) + data)
    return path


def _metadata(vocabulary: list[str]) -> dict[str, bytes]:
    numbers = {
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "block_count": 1,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": HEADS,
        "attention.head_count_kv": HEADS,
    }
    kinds = struct.pack("<IIQ", ARRAY, INT32, len(vocabulary)) + struct.pack(
        f"<{len(vocabulary)}i", *[1] * (len(vocabulary) - 1), 3
    )
    return {
        "general.architecture": _text("llama"),
        **{
            f"llama.{name}": struct.pack("<II", UINT32, number)
            for name, number in numbers.items()
        },
        "llama.attention.layer_norm_rms_epsilon": struct.pack("<If", FLOAT32, 1e-5),
        "tokenizer.ggml.model": _text("gpt2"),
        "tokenizer.ggml.pre": _text("gpt-2"),
        "tokenizer.ggml.tokens": _texts(vocabulary),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": _texts(["a b"]),
        "tokenizer.ggml.eos_token_id": struct.pack("<II", UINT32, len(vocabulary) - 1),
        "tokenizer.ggml.bos_token_id": struct.pack("<II", UINT32, len(vocabulary) - 1),
        "tokenizer.chat_template": _text(TEMPLATE),
    }


def _tensors(vocabulary: int) -> dict[str, tuple[int, ...]]:
    square = (WIDTH, WIDTH)
    return {
        "token_embd.weight": (WIDTH, vocabulary),
        "output_norm.weight": (WIDTH,),
        "output.weight": (WIDTH, vocabulary),
        "blk.0.attn_norm.weight": (WIDTH,),
        **{f"blk.0.attn_{part}.weight": square for part in ("q", "k", "v", "output")},
        "blk.0.ffn_norm.weight": (WIDTH,),
        "blk.0.ffn_gate.weight": (WIDTH, FEED_FORWARD),
        "blk.0.ffn_up.weight": (WIDTH, FEED_FORWARD),
        "blk.0.ffn_down.weight": (FEED_FORWARD, WIDTH),
    }


def _byte_characters() -> list[str]:
    """GPT-2's printable character for each of the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [
        chr(256 + index) for index in range(len(rest))
    ]


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _text(text: str) -> bytes:
    return struct.pack("<I", STRING) + _string(text)


def _texts(texts: list[str]) -> bytes:
    return struct.pack("<IIQ", ARRAY, STRING, len(texts)) + b"".join(
        map(_string, texts)
    )


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % ALIGNMENT)
