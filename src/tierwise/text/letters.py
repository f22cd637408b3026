"""How likely a text is as a text in some language, by the pairs of letters in it.

For choosing among the readings of the same bytes: the right encoding gives words of a language,
a wrong one gives letters that hardly follow one another in any.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

PAIRS_FILE = Path(__file__).with_name("letter_pairs.json")
LEVELS = "0123456789abcdefghijklmnopqrstuvwxyz"

# Probabilities. A letter that a language does not have; a letter of another script.
_FOREIGN_LETTER = 3e-6
_OTHER_SCRIPT = 1e-7
# Marks that print shops use, and any other sign; within a word they are rarer.
_TYPOGRAPHIC = 2e-3
_OTHER_SIGN = 2e-6
_CURRENCY = 5e-2  # next to a number
_LONE_QUOTE = 3e-2  # a quotation mark without its partner
_WITHIN_WORD = 2e-3
_CAPITAL_WITHIN_WORD = 5e-3
_ENGLISH_AMONG_OTHERS = 0.02
_MIXED_SCRIPTS = 1e-4  # two scripts in one word
_TONE = 0.2
_SMOOTHING = (
    2.0  # pairs that each row of counts is given, spread like the single letters
)
_MARKS = frozenset(
    "“”„‘’‚«»‹›–—…•·°§©®™€£½¼¾²³¿¡´\u00a0\u00ad\u200e\u200f\u2011\u2009\u202f"
)
_CURRENCIES = frozenset("€£¥")
_QUOTES = ("“”„", "«»", "‹›", "‚‘")
_IN_WORDS = frozenset("’·\u00ad\u2011\u200c\u200d´")
_SIGNS_THAT_ARE_LETTERS = frozenset("ªºµØø")

_Pair = tuple[str, str]


@dataclass(frozen=True)
class _Letters:
    """A language that is written with letters: how often one follows another."""

    name: str
    counts: Mapping[str, Mapping[str, float]]

    @cached_property
    def _row_totals(self) -> dict[str, float]:
        totals: dict[str, float] = {}
        for first, row in self.counts.items():
            totals[first] = sum(row.values())
        return totals

    @cached_property
    def _single(self) -> dict[str, float]:
        singles: defaultdict[str, float] = defaultdict(float)
        for row in self.counts.values():
            for second, count in row.items():
                singles[second] += count
        total = sum(singles.values())
        return {letter: count / total for letter, count in singles.items()}

    @cached_property
    def letters(self) -> frozenset[str]:
        return frozenset(self._single)

    @cached_property
    def script(self) -> str:
        """The script of its letters beyond ASCII, by one that is frequent."""
        beyond = [letter for letter in self._single if not letter.isascii()]
        if not beyond:
            return "LATIN"
        return script_of(max(beyond, key=self._single.__getitem__))

    @cached_property
    def _known(self) -> dict[_Pair, float]:
        # A cache that `log` fills; the dataclass is frozen, this dictionary is not.
        return {}

    def log(self, pair: _Pair) -> float:
        """Return the logarithm of the second character's probability after the first."""
        known = self._known.get(pair)
        if known is None:
            known = self._known[pair] = self._log(*pair)
        return known

    def _log(self, first: str, second: str) -> float:
        # Between words (one of the two is a space) scripts may change freely.
        mixed = 0.0
        is_in_word = " " not in (first, second)
        is_mixed = first.isascii() != second.isascii() and self.script != "LATIN"
        if is_in_word and is_mixed:
            mixed = math.log(_MIXED_SCRIPTS)
        single = self._single.get(second)
        if single is None:
            if script_of(second) == self.script:
                single = _FOREIGN_LETTER
            else:
                single = _OTHER_SCRIPT
        count = self.counts.get(first, {}).get(second, 0.0)
        total = self._row_totals.get(first, 0.0)
        # Additive smoothing towards the single letters: no pair has probability 0.
        smoothed_count = count + _SMOOTHING * single
        smoothed_total = total + _SMOOTHING
        return mixed + math.log(smoothed_count / smoothed_total)


@dataclass(frozen=True)
class Likelihood:
    """The logarithm of a text's probability, and the language in which it is that likely."""

    log: float
    language: str


def likelihood(text: str, languages: Mapping[str, float]) -> Likelihood:
    """Return the likelihood of a text in the likeliest of some languages.

    `languages` has the logarithm of each one's prior probability. Words in ASCII may be English in
    any language, as names, addresses and markup are.
    """
    words = _pairs(text)
    in_english = _sum(_letters()["en"], words.in_ascii)
    best = Likelihood(-math.inf, "")
    for name, prior in languages.items():
        language = _letters()[name]
        # In another script, ASCII words cannot be the language's own: they count as English.
        in_ascii = in_english
        if language.script == "LATIN":
            own = _sum(language, words.in_ascii)
            in_ascii = max(own, in_english + math.log(_ENGLISH_AMONG_OTHERS))
        log = words.signs + prior + _sum(language, words.beyond_ascii) + in_ascii
        if log > best.log:
            best = Likelihood(log, name)
    return best


def _sum(language: _Letters, pairs: Mapping[_Pair, int]) -> float:
    logs = (count * language.log(pair) for pair, count in pairs.items())
    return sum(logs)


@dataclass
class _Pairs:
    """The pairs of letters of a text: those of words in ASCII, and those of all other words."""

    in_ascii: Counter[_Pair]
    beyond_ascii: Counter[_Pair]
    signs: float  # the logarithm of the probability of all that is no letter


def _pairs(text: str) -> _Pairs:
    """Count the pairs of letters, each word with the space before it and the one after it.

    What is neither a letter nor a mark upon one counts as the space between words.
    """
    pairs = _Pairs(Counter(), Counter(), 0.0)
    word: list[_Pair] = []
    before = " "
    is_in_ascii = True
    case = _Case()
    for place, character in enumerate(text):
        pairs.signs += case.log(character)
        if "\u0300" <= character < "\u0370":
            # A tone of Vietnamese, which cp1258 writes apart from its vowel.
            tone = _TONE if before.isalpha() else _OTHER_SIGN
            pairs.signs += math.log(tone)
            continue
        now = " "
        if character.isascii():
            if character.isalpha():
                now = character.lower()
        elif is_letter(character) and not _is_sign(text, place):
            now = _folded(character)
            is_in_ascii = False
        else:
            pairs.signs += _sign_log(text, place)
        if before != " " or now != " ":
            word.append((before, now))
        if now == " ":
            # One letter beyond ASCII puts the whole word, with its ASCII pairs, on that side.
            counts = pairs.in_ascii if is_in_ascii else pairs.beyond_ascii
            counts.update(word)
            word.clear()
            is_in_ascii = True
        before = now
    # The last word, where the text does not end in a space.
    counts = pairs.in_ascii if is_in_ascii else pairs.beyond_ascii
    counts.update(word)
    for family in _QUOTES:
        if sum(map(text.count, family)) == 1:
            pairs.signs += math.log(_LONE_QUOTE)
    return pairs


class _Case:
    """Follows the case of letters: a capital after a small letter is rare."""

    def __init__(self) -> None:
        self._before = ""

    def log(self, character: str) -> float:
        before = self._before
        self._before = character
        if not before.isalpha() or not character.isalpha():
            return 0.0
        if character.isupper() and before.islower():
            return math.log(_CAPITAL_WITHIN_WORD)
        return 0.0


def _is_sign(text: str, place: int) -> bool:
    """Return True for a letter that stands alone, where it is a sign: `Ø 12`, `5 µm`."""
    if text[place] not in _SIGNS_THAT_ARE_LETTERS:
        return False
    before = text[place - 1 : place]
    return not before.isalpha() and not (text[place + 1 : place + 2]).isalpha()


def _sign_log(text: str, place: int) -> float:
    """Return the logarithm of the probability of a sign beyond ASCII."""
    sign = text[place]
    probability = _TYPOGRAPHIC if sign in _MARKS else _OTHER_SIGN
    before = text[place - 1 : place] if place else ""
    after = text[place + 1 : place + 2]
    if sign in _CURRENCIES and _is_next_to_number(text, place):
        probability = _CURRENCY
    if before.isalpha() and after.isalpha() and sign not in _IN_WORDS:
        probability *= _WITHIN_WORD
    return math.log(probability)


def _is_next_to_number(text: str, place: int) -> bool:
    # Two characters on each side, as one of them may be a space: `12 €`, `€ 12`.
    two_before = text[max(0, place - 2) : place]
    two_after = text[place + 1 : place + 3]
    nearest_before = two_before.rstrip()[-1:]
    nearest_after = two_after.lstrip()[:1]
    return nearest_before.isdigit() or nearest_after.isdigit()


def is_letter(character: str) -> bool:
    """Return True for a letter or a mark that belongs to one, such as a vowel sign."""
    return character.isalpha() or unicodedata.category(character) in ("Mn", "Mc")


@cache
def _folded(character: str) -> str:
    """Return a letter in lower case, the Romanian ones with a comma as those with a cedilla."""
    lower = character.lower()
    if len(lower) != 1:
        lower = "i" if character == "İ" else character
    return {"ș": "ş", "ț": "ţ"}.get(lower, lower)


@cache
def script_of(character: str) -> str:
    """Return the first word of a character's name, such as LATIN or CYRILLIC."""
    return unicodedata.name(character, "").partition(" ")[0]


@cache
def _letters() -> dict[str, _Letters]:
    languages: dict[str, _Letters] = {}
    packed = json.loads(PAIRS_FILE.read_text(encoding="utf-8"))
    for name, rows in packed.items():
        counts: dict[str, dict[str, float]] = {}
        for first, row in rows.items():
            counts[first] = dict(_unpacked(row))
        languages[name] = _Letters(name, counts)
    return languages


def _unpacked(row: str) -> Iterator[tuple[str, float]]:
    # A letter, then the level of its count; two levels up is twice as many.
    for place in range(0, len(row), 2):
        letter = row[place]
        level = LEVELS.index(row[place + 1])
        yield letter, 2 ** (level / 2)
