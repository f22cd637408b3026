"""The only door to RapidOCR: text recognition on this machine, by models in the library's wheel.

It reads Latin script, Chinese and Japanese. Nothing is fetched: the models are named by their
files. The number of threads is fixed, so that a page gives the same text each time.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierwise.documents.readers.pages.reading_order import Point, Quad

if TYPE_CHECKING:
    from PIL.Image import Image

PACKAGE = "rapidocr"
_THREADS = 2
_LARGEST_SIDE = 4096  # pictures come smaller, see `rendering.py`
_TALL = 1.5  # times its width: a line that runs up or down
_MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}


def is_installed() -> bool:
    """Return True if the extra `ocr` is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def missing_remedy() -> str:
    """Say what to do where no text recognition reads a page."""
    if is_installed():
        return "set ocr = true in [tool.tierwise] of pyproject.toml"
    return 'install text recognition (pip install "tierwise[ocr]")'


def installed_version() -> str:
    """Return the version of text recognition; empty where it is not installed."""
    if not is_installed():
        return ""
    return importlib.metadata.version(PACKAGE)


@dataclass(frozen=True, slots=True)
class ReadWord:
    """One word of a line, with its place on the picture in pixels."""

    text: str = field(repr=False)
    quad: Quad
    confidence: float


@dataclass(frozen=True, slots=True)
class ReadLine:
    """One line of a picture; its words are none where the library does not place them."""

    text: str = field(repr=False)
    quad: Quad
    confidence: float
    words: tuple[ReadWord, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Recognized:
    """What was read on a picture, which was turned clockwise by `turn` degrees for it."""

    turn: int
    width: int
    height: int
    lines: tuple[ReadLine, ...]


class Recognizer:
    """Reads pictures. The models are loaded for the first one."""

    def __init__(self) -> None:
        self._engine: Any = None

    def read(self, image: Image) -> Recognized:
        """Read a picture, turned until its lines are upright."""
        turn = 0
        lines, upside_down = self._lines(image)
        if lines and _share(_is_tall(line.quad) for line in lines) > 0.5:
            turn = 90
            lines, upside_down = self._lines(_turned(image, turn))
        if lines and upside_down > 0.5:
            turn += 180
            lines, _ = self._lines(_turned(image, turn))
        turned = _turned(image, turn)
        return Recognized(turn, turned.width, turned.height, tuple(lines))

    def _lines(self, image: Image) -> tuple[list[ReadLine], float]:
        """Return the lines, and the share of them that are upside down."""
        import numpy as np

        if self._engine is None:
            self._engine = _load_engine()
        pixels = np.asarray(image.convert("RGB"))[:, :, ::-1]
        result = self._engine(np.ascontiguousarray(pixels))
        if result.txts is None:
            return [], 0.0
        placed = list(result.word_results)
        lines = []
        for text, box, score in zip(
            result.txts, result.boxes, result.scores, strict=True
        ):
            words: tuple[ReadWord, ...] = ()
            # The library leaves out the words of some lines without a gap in the list.
            if placed and _is_of(placed[0], text):
                words = tuple(_word(each) for each in placed.pop(0))
            lines.append(ReadLine(text, _quad(box), float(score), words))
        return lines, self._engine.upside_down


def _load_engine() -> Any:
    import rapidocr

    class Engine(rapidocr.RapidOCR):
        """RapidOCR that remembers how many lines were upside down."""

        upside_down = 0.0

        def cls_and_rotate(self, images: Any) -> Any:
            turned, found = super().cls_and_rotate(images)
            results = found.cls_res or []
            labels = [label for label, score in results if score > _CLEARLY]
            self.upside_down = labels.count("180") / max(len(results), 1)
            return turned, found

    models = Path(rapidocr.__file__).parent / "models"
    parameters: dict[str, Any] = {
        "Global.log_level": "critical",
        "Global.text_score": 0.0,  # what is uncertain is a loss, see `page_text.py`
        "Global.max_side_len": _LARGEST_SIDE,
        "Global.return_word_box": True,
        "EngineConfig.onnxruntime.intra_op_num_threads": min(
            _THREADS, os.cpu_count() or 1
        ),
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }
    for part, name in _MODELS.items():
        parameters[f"{part}.model_path"] = str(models / name)
    return Engine(params=parameters)


_CLEARLY = 0.9


def _turned(image: Image, turn: int) -> Image:
    """Return a picture turned clockwise."""
    return image.rotate(-turn, expand=True) if turn else image


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found) if found else 0.0


def _is_tall(quad: Quad) -> bool:
    xs = [x for x, _ in quad]
    ys = [y for _, y in quad]
    return max(ys) - min(ys) > _TALL * (max(xs) - min(xs))


def _quad(box: Any) -> Quad:
    points: list[Point] = [(float(x), float(y)) for x, y in box]
    return (points[0], points[1], points[2], points[3])


def _word(found: Any) -> ReadWord:
    text, score, box = found
    return ReadWord(str(text), _quad(box), float(score))


def _is_of(words: Sequence[Any], line: str) -> bool:
    """Return True if these are the words of a line."""
    joined = "".join(str(word[0]) for word in words)
    return "".join(joined.split()) == "".join(line.split())
