"""An embedder in this process: an ONNX model (onnxruntime) and its tokenizer (tokenizers).

Each text is embedded alone. Weights in int8 have their activations quantised by the largest number
in the whole batch, so in a batch a text's vector would depend on its neighbours. Alone, the same
text always has the same vector, and no time goes into padding.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from tierwise.errors import WeightsError
from tierwise.gateway.embedders.encoder_files import EncoderFiles
from tierwise.gateway.local.server import usable_cores
from tierwise.policy.embedders import EmbedderEntry
from tierwise.records import Sensitivity, text_hash

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEPT = 4096  # vectors: one text is asked for by the classifier and by the examples
_FATAL_ONLY = 4  # onnxruntime's log on stderr; its errors reach us as exceptions
_LONGEST_REASON = 200  # characters of a library's error


class Encoder:
    """One ONNX model with its tokenizer. Thread-safe."""

    def __init__(
        self, entry: EmbedderEntry, session: Any, tokenizer: Any, identity: str
    ) -> None:
        self.name = entry.name
        self.identity = identity
        self.dimensions = entry.dimensions
        self._entry = entry
        self._session = session
        self._tokenizer = tokenizer
        self._inputs = [value.name for value in session.get_inputs()]
        self._threads = entry.threads or usable_cores()
        self._kept: OrderedDict[str, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def embed(
        self,
        texts: Sequence[str],
        *,
        sensitivity: Sensitivity = "restricted",  # noqa: ARG002 - nothing leaves this process
    ) -> NDArray[Any]:
        """Return one row a text, of length 1; a text without words has a row of zeros."""
        import numpy

        hashes = [text_hash(text) for text in texts]
        vectors = self._kept_vectors(hashes)
        # equal texts once, and those of an earlier call not again
        new = {
            digest: text
            for digest, text in zip(hashes, texts, strict=True)
            if digest not in vectors and text.strip()
        }
        encoded = self._encode_all(list(new.values()))
        vectors.update(zip(new, encoded, strict=True))
        self._keep(vectors)
        rows = numpy.zeros((len(texts), self.dimensions), dtype=numpy.float32)
        for place, digest in enumerate(hashes):
            if digest in vectors:
                rows[place] = vectors[digest]
        return rows

    def _kept_vectors(self, hashes: Sequence[str]) -> dict[str, NDArray[Any]]:
        with self._lock:
            return {
                digest: self._kept[digest] for digest in hashes if digest in self._kept
            }

    def _keep(self, vectors: Mapping[str, NDArray[Any]]) -> None:
        """Keep the newest vectors, and drop the oldest."""
        with self._lock:
            self._kept.update(vectors)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def _encode_all(self, texts: list[str]) -> list[NDArray[Any]]:
        """Return the vector of each text; several at a time where there are several cores."""
        if len(texts) < 2 or self._threads < 2:
            return [self._encode(text) for text in texts]
        # The longest first, so that no thread ends long after the others.
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        with ThreadPoolExecutor(self._threads) as pool:
            vectors = list(pool.map(self._encode, [texts[place] for place in order]))
        by_place = dict(zip(order, vectors, strict=True))
        return [by_place[place] for place in range(len(texts))]

    def _encode(self, text: str) -> NDArray[Any]:
        """Return a text's vector: of its windows, weighted by their tokens.

        Raises WeightsError when the model gives anything but numbers.
        """
        import numpy

        # Half a character is no text to the tokenizer.
        whole = text.encode("utf-8", "replace").decode()
        encoding = self._tokenizer.encode(f"{self._entry.prefix}{whole}")
        total = numpy.zeros(self.dimensions, dtype=numpy.float64)
        for window in (encoding, *encoding.overflowing):
            special = sum(window.special_tokens_mask)
            tokens = max(1, len(window.ids) - special)
            total += tokens * self._pooled_window(window.ids)
        length = float(numpy.linalg.norm(total))
        if not math.isfinite(length) or length == 0:
            raise WeightsError(
                "its vectors are not numbers; the weights are damaged or no embedder's",
                model=self.name,
            )
        vector: NDArray[Any] = (total / length).astype(numpy.float32)
        return vector

    def _pooled_window(self, ids: Sequence[int]) -> NDArray[Any]:
        """Return the pooled output of a window. Raises WeightsError when the model refuses it."""
        try:
            return self.pooled(ids)
        except Exception as error:  # noqa: BLE001 - the library's errors have no common class
            reason = shorten(str(error), _LONGEST_REASON, placeholder=" …")
            raise WeightsError(
                f"the model cannot read {len(ids)} tokens at once ({reason}); "
                "lower `window_tokens` in the catalog to what its model card says",
                model=self.name,
            ) from None

    def pooled(self, ids: Sequence[int]) -> NDArray[Any]:
        """Return the pooled output for the tokens of one window, as float64."""
        import numpy

        tokens = numpy.asarray([ids], dtype=numpy.int64)
        feeds = {name: _INPUTS[name](tokens) for name in self._inputs}
        output = self._session.run(None, feeds)[0]
        states: NDArray[Any] = numpy.asarray(output, dtype=numpy.float64)[0]
        # A model that pools by itself gives one vector, not one for each token.
        if states.ndim == 1:
            return states
        if self._entry.pooling == "cls":
            first: NDArray[Any] = states[0]
            return first
        mean: NDArray[Any] = states.mean(axis=0)
        return mean


def _ones(tokens: Any) -> Any:
    import numpy

    return numpy.ones_like(tokens)


def _zeros(tokens: Any) -> Any:
    import numpy

    return numpy.zeros_like(tokens)


_INPUTS: dict[str, Callable[[Any], Any]] = {
    "input_ids": lambda tokens: tokens,
    "attention_mask": _ones,
    "token_type_ids": _zeros,
}


def load_encoder(entry: EmbedderEntry, files: EncoderFiles, identity: str) -> Encoder:
    """Load the model and its tokenizer, and try them on each other.

    Raises WeightsError when one cannot be read, or they do not fit.
    """
    tokenizer = _load_tokenizer(entry, files)
    session = _load_session(entry, files)
    names = [value.name for value in session.get_inputs()]
    unknown = [name for name in names if name not in _INPUTS]
    if unknown or "input_ids" not in names:
        raise WeightsError(
            f"{files.model}: takes {', '.join(names)}, not the tokens of a text; "
            "name the ONNX file of a sentence encoder",
            model=entry.name,
        )
    encoder = Encoder(entry, session, tokenizer, identity)
    _check_tokens(entry, encoder, tokenizer)
    return encoder


def _load_tokenizer(entry: EmbedderEntry, files: EncoderFiles) -> Any:
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(files.tokenizer))
    except Exception as error:  # noqa: BLE001 - the library raises plain Exception
        raise WeightsError(
            f"{files.tokenizer}: not a tokenizer.json ({error})", model=entry.name
        ) from None
    # A tokenizer.json may ask for padding, and for a shorter window than the model has.
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=entry.window_tokens, stride=0)
    return tokenizer


def _load_session(entry: EmbedderEntry, files: EncoderFiles) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One thread a text: texts share the cores among them, and the sums have one order.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    try:
        return onnxruntime.InferenceSession(
            str(files.model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001 - the library's errors have no common class
        raise WeightsError(
            f"{files.model}: onnxruntime cannot load it ({error})", model=entry.name
        ) from None


def _check_tokens(entry: EmbedderEntry, encoder: Encoder, tokenizer: Any) -> None:
    """Raise WeightsError unless the model knows the tokenizer's tokens, and not many more.

    The model says how many tokens it knows only by refusing one beyond.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    highest = max(vocabulary.values(), default=0)
    vector = _try_token(encoder, highest)
    if vector is None:
        raise WeightsError(
            f"the tokenizer does not fit the model: its {highest + 1} tokens are more than "
            "the model knows; name the tokenizer.json that belongs to the weights",
            model=entry.name,
        )
    # Tables are padded by a few rows, never by a tenth.
    far_beyond = highest + highest // 10 + 1024
    if _try_token(encoder, far_beyond) is not None:
        raise WeightsError(
            f"the tokenizer does not fit the model: the model knows far more than its "
            f"{highest + 1} tokens; name the tokenizer.json that belongs to the weights",
            model=entry.name,
        )
    if len(vector) != entry.dimensions:
        raise WeightsError(
            f"its vectors have {len(vector)} numbers, the catalog says "
            f"`dimensions: {entry.dimensions}`",
            model=entry.name,
        )


def _try_token(encoder: Encoder, token: int) -> Any:
    """Return the vector of one token; None where the model refuses it."""
    try:
        return encoder.pooled([token])
    except Exception:  # noqa: BLE001 - the library's errors have no common class
        return None
