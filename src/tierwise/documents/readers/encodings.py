"""The choice among encodings, by the language that each one makes of the same bytes.

Every encoding that fits is tried. A reading that gives words of a language which is written with
that encoding is likelier than one that gives signs between letters. Readings with the same
letters are one reading: there is no doubt where only a quotation mark differs.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from tierwise.text.ideographs import ideographic_likelihood
from tierwise.text.letters import is_letter, likelihood, script_of

_SAMPLE_BYTES = 3_000
_CONTEXT_BYTES = 40
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_WHITE = re.compile(rb"[\t\n\r ]")
_GLANCE_BYTES = 150
_FAR_BEHIND = 60  # in logarithms, after a glance
_WESTERN = "da de en es fi fr ga id is it nl no pt sv"
_CENTRAL = "cs hr hu pl ro sk sl"
_BALTIC = "et lt lv"
_CYRILLIC = "be bg mk ru sr uk"
# The languages of each encoding, and the logarithm of how rare it is: today's Windows and the
# standards of Asia first, then the ISO's, then those of DOS and of the old Macintosh.
_EXPECTED: dict[str, tuple[str, float]] = {
    "cp1252": (_WESTERN, 0),
    "cp1250": (_CENTRAL + " de", -0.5),
    "cp1251": (_CYRILLIC, 0),
    "cp1253": ("el", 0),
    "cp1254": ("tr", -0.5),
    "cp1255": ("he", 0),
    "cp1256": ("ar fa", 0),
    "cp1257": (_BALTIC, -0.5),
    "cp1258": ("vi", -0.5),
    "cp874": ("th", 0),
    "iso8859-15": (_WESTERN, -1.5),
    "iso8859-2": (_CENTRAL + " de", -1.5),
    "iso8859-4": (_BALTIC, -3),
    "iso8859-5": (_CYRILLIC, -1.5),
    "iso8859-6": ("ar", -1.5),
    "iso8859-7": ("el", -1),
    "iso8859-8": ("he", -1),
    "iso8859-9": ("tr", -1.5),
    "iso8859-13": (_BALTIC, -1.5),
    "iso8859-16": ("ro", -3),
    "koi8-r": ("ru bg", -0.5),
    "koi8-u": ("uk ru", -1.5),
    "mac-roman": (_WESTERN, -3),
    "mac-latin2": (_CENTRAL, -4),
    "mac-cyrillic": (_CYRILLIC, -3),
    "mac-greek": ("el", -3),
    "mac-turkish": ("tr", -4),
    "mac-iceland": ("is", -4),
    "cp850": (_WESTERN, -3),
    "cp437": (_WESTERN, -3.5),
    "cp852": (_CENTRAL, -3),
    "cp775": (_BALTIC, -4),
    "cp737": ("el", -4),
    "cp857": ("tr", -4),
    "cp862": ("he", -4),
    "cp866": (_CYRILLIC, -2),
    "cp1125": ("uk", -4),
    "cp932": ("ja", 0),
    "euc_jp": ("ja", 0),
    "gb18030": ("zh", 0),
    "big5hkscs": ("zh-TW", 0),
    "cp949": ("ko", 0),
}
_UNEXPECTED = -5.0  # a language that is seldom written with an encoding
_FEW_OF_ANOTHER_SCRIPT = -20.0
_LATIN = frozenset(f"{_WESTERN} {_CENTRAL} {_BALTIC} tr vi".split())
_ASIAN = frozenset({"cp932", "euc_jp", "gb18030", "big5hkscs", "cp949"})
# Romanian is written with either of two letters that look alike.
_SAME_LETTERS = str.maketrans("șțȘȚ", "şţŞŢ")
_MIXED_WORD = re.compile(
    r"(?<=[a-zA-Z])(?=[^\W\d_a-zA-Z])|(?<=[^\W\d_a-zA-Z])(?=[a-zA-Z])"
)
_MIXED = 0.03  # an ideograph next to a letter of ASCII
_CONTROLS = re.compile("[\x80-\x84\x86-\x9f\ue000-\uf8ff\ufffd]")


@dataclass(frozen=True, slots=True)
class Reading:
    """One encoding's reading of some bytes, with the logarithm of its probability."""

    encoding: str
    language: str
    log: float
    size: int  # of the sample, in bytes
    letters: str  # of the sample: readings with the same ones are one reading

    @property
    def log_per_byte(self) -> float:
        """The logarithm of the probability, spread over the bytes."""
        return self.log / max(1, self.size)


@dataclass(frozen=True, slots=True)
class Choice:
    """The likeliest reading, and the others that have other letters, likeliest first."""

    best: Reading
    same: tuple[
        str, ...
    ]  # the encodings with the best one's letters, the usual ones first
    others: tuple[Reading, ...]
    logs: Mapping[str, float]  # by encoding: the logarithm of its reading's probability

    def lead(self, encoding: str) -> float:
        """Return how much likelier the best is than an encoding; infinite if it reads nothing."""
        return self.best.log - self.logs.get(encoding, -math.inf)

    @property
    def margin(self) -> float:
        """How much likelier the best is than the next: the logarithm of their ratio."""
        if not self.others:
            return math.inf
        return self.best.log - self.others[0].log


def choose_encoding(
    data: bytes, favoured: str | None = None, favour: float = 0
) -> Choice | None:
    """Return the likeliest of the encodings that fit all of the data; None if none fits.

    `favour` is added to the logarithm of the favoured encoding's probability.
    """
    fitting = [name for name in _candidates(favoured) if _fits(data, name)]
    favours = {favoured: favour}
    sample = sample_of(data)
    if len(sample) > 1.5 * _GLANCE_BYTES:
        # Most are told apart at a glance, and a reading takes time.
        fitting = _close_ones(
            _readings(sample_of(data, _GLANCE_BYTES), fitting, favours)
        )
    readings = _readings(sample, fitting, favours)
    if not readings:
        return None
    best = readings[0]
    seen = {best.letters}
    others: list[Reading] = []
    for reading in readings:
        if reading.letters not in seen:
            seen.add(reading.letters)
            others.append(reading)
    same = {each.encoding for each in readings if each.letters == best.letters}
    usual_first = tuple(filter(same.__contains__, _EXPECTED))
    logs = {reading.encoding: reading.log for reading in readings}
    return Choice(best, usual_first, tuple(others), logs)


def _readings(
    sample: bytes, encodings: list[str], favours: dict[str | None, float]
) -> list[Reading]:
    """Return the readings of a sample, likeliest first."""
    readings: list[Reading] = []
    for encoding in encodings:
        reading = _read(sample, encoding, favours.get(encoding, 0))
        if reading is not None:
            readings.append(reading)
    return sorted(readings, key=lambda reading: -reading.log)


def _close_ones(readings: list[Reading]) -> list[str]:
    return [
        reading.encoding
        for reading in readings
        if readings[0].log - reading.log < _FAR_BEHIND
    ]


def _candidates(favoured: str | None) -> Iterator[str]:
    yield from _EXPECTED
    if favoured is not None and favoured not in _EXPECTED:
        yield favoured


def _fits(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except ValueError:
        return False
    return True


def sample_of(data: bytes, most: int = _SAMPLE_BYTES) -> bytes:
    """Return the first words with bytes beyond ASCII, each with some ASCII before it."""
    if len(data) <= most:
        return data
    pieces: list[bytes] = []
    size = 0
    end = 0
    while size < most:
        high = _BEYOND_ASCII.search(data, end)
        if high is None:
            break
        # A byte beyond ASCII after ASCII begins a character, and so does one after white space.
        start = high.start()
        earliest = max(end, start - _CONTEXT_BYTES)
        space = data.find(b" ", earliest, start)
        if space >= 0:
            start = space + 1
        white = _WHITE.search(data, high.end())
        end = white.start() if white else len(data)
        pieces.append(data[start : min(end, start + most - size)])
        size += end - start + 1
    return b" ".join(pieces)


def _read(sample: bytes, encoding: str, favour: float) -> Reading | None:
    """Return an encoding's reading of the sample; None when it is no text."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        text = decoder.decode(sample)
    except ValueError:
        return None
    if _CONTROLS.search(text):
        return None
    expected, rarity = _EXPECTED.get(encoding, ("", -4.0))
    letters = "".join(filter(is_letter, text)).translate(_SAME_LETTERS)
    if encoding in _ASIAN:
        log, language = ideographic_likelihood(text)
        log += likelihood(_ascii_words(text), {"en": 0.0}).log
        log += len(_MIXED_WORD.findall(text)) * math.log(_MIXED)
        if language not in expected.split():
            log += _UNEXPECTED
    else:
        found = likelihood(text, _languages(text, expected))
        log, language = found.log, found.language
    in_ascii = sum(map(str.isascii, letters))
    if language not in _LATIN and in_ascii * 2 > len(letters):
        # A few letters of another script among many of ours are seldom meant.
        log += _FEW_OF_ANOTHER_SCRIPT
    return Reading(encoding, language, log + rarity + favour, len(sample), letters)


def _ascii_words(text: str) -> str:
    return "".join(c if c.isascii() else " " for c in text)


def _languages(text: str, expected: str) -> dict[str, float]:
    """Return the languages that a text may be in, by its script, with their prior probability."""
    beyond = (c for c in text if not c.isascii() and c.isalpha())
    scripts = {script_of(character) for character in islice(beyond, 200)} - {"MODIFIER"}
    names = expected.split()
    priors = dict.fromkeys(names, 0.0)
    if names == ["vi"]:
        # No other language writes its accents apart from their letters.
        return priors
    if "LATIN" in scripts or not scripts or not names:
        for name in sorted(_LATIN):
            priors.setdefault(name, _UNEXPECTED)
    return priors
