"""Numbers that a text writes in words: English, German, French, Spanish, Chinese and Japanese.

A number counts as a whole: "twenty-one" is 21, and neither 20 nor 1. Articles (a, ein, un) are no
numbers. Roman numerals are left out, as too many words and initials look like them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

_WORD = re.compile(r"[^\W\d_]+(?:’[^\W\d_]+)?")
_UNITS = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen"
    " fourteen fifteen sixteen seventeen eighteen nineteen",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn"
    " vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize"
    " quatorze quinze seize",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece"
    " catorce quince dieciséis diecisiete dieciocho diecinueve veinte veintiuno"
    " veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete veintiocho"
    " veintinueve",
}
_TENS = {
    "en": "twenty thirty forty fifty sixty seventy eighty ninety",
    "de": "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig",
    "fr": "vingt trente quarante cinquante soixante",
    "es": "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa",
}
_ORDINALS = {
    "en": "first second third fourth fifth sixth seventh eighth ninth tenth eleventh"
    " twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth",
    "de": "erste zweite dritte vierte fünfte sechste siebte achte neunte zehnte elfte"
    " zwölfte dreizehnte vierzehnte fünfzehnte sechzehnte siebzehnte achtzehnte neunzehnte",
    "fr": "premier deuxième troisième quatrième cinquième sixième septième huitième"
    " neuvième dixième onzième douzième treizième quatorzième quinzième seizième",
    "es": "primero segundo tercero cuarto quinto sexto séptimo octavo noveno décimo",
}
_OTHERS = {
    "en": {"hundred": 100, "hundredth": 100, "thousand": 1000, "million": 10**6}
    | {"twentieth": 20, "thirtieth": 30, "fortieth": 40, "fiftieth": 50}
    | {"billion": 10**9, "dozen": 12},
    "de": {"million": 10**6, "millionen": 10**6, "milliarde": 10**9, "dutzend": 12}
    | {"milliarden": 10**9},
    "fr": {"cent": 100, "cents": 100, "mille": 1000, "million": 10**6}
    | {"millions": 10**6, "septante": 70, "huitante": 80, "nonante": 90}
    | {"première": 1, "second": 2, "seconde": 2, "vingtième": 20, "trentième": 30},
    "es": {"cien": 100, "ciento": 100, "doscientos": 200, "trescientos": 300}
    | {"cuatrocientos": 400, "quinientos": 500, "seiscientos": 600}
    | {"setecientos": 700, "ochocientos": 800, "novecientos": 900, "mil": 1000}
    | {"millón": 10**6, "millones": 10**6, "primer": 1, "primera": 1, "segunda": 2}
    | {"tercer": 3, "tercera": 3, "cuarta": 4, "quinta": 5},
}
# Between the parts of one number.
_JOINS = {"en": "and", "de": "und", "fr": "et", "es": "y"}
# These are articles: numbers only behind another one.
_ARTICLES = {"un", "une"}
# Where a text's language is unknown: words that are no number in another of the languages.
_ELSEWHERE = {"once", "cent", "cents", "mil", "neuf", "elf", "six", "dix", "second"}
_GERMAN_ENDINGS = re.compile(r"(?:r|n|s|m)$")


def numbers_in_words(text: str, language: str | None) -> set[int]:
    """Return the numbers that are written in words of a language; of all, where it is unknown."""
    found = set(_ideographic(text))
    languages = [language] if language in _UNITS else []
    if language is None:
        languages = list(_UNITS)
    for name in languages:
        ignored = _ELSEWHERE if language is None else set()
        found.update(_in_language(text.casefold(), name, ignored))
    return found


def _in_language(text: str, language: str, ignored: set[str]) -> Iterator[int]:
    """Yield the numbers of a text: runs of number words with nothing but a join between them."""
    number = _Number()
    end = 0
    is_joined = False
    for match in _WORD.finditer(text):
        word = match[0]
        gap = text[end : match.start()]
        if gap.strip() not in ("", "-", "‐", "‑"):
            yield from number.taken()
        end = match.end()
        if word == _JOINS[language] and not number.is_empty:
            is_joined = True
            continue
        value = None if word in ignored else _value(word, language)
        if value is None or (word in _ARTICLES and not number.takes_unit):
            yield from number.taken()
        elif not number.add(value, joined=is_joined, language=language):
            yield from number.taken()
            if word not in _ARTICLES:
                number.add(value)
        is_joined = False
    yield from number.taken()


class _Number:
    """A number whose words are read one after another."""

    def __init__(self) -> None:
        self._total = 0
        self._current = 0
        self._scale = 10**12  # of the last thousand or million
        self.is_empty = True

    @property
    def takes_unit(self) -> bool:
        """True after twenty, thirty and so on."""
        return self._current % 100 >= 20 and self._current % 10 == 0

    def add(self, value: int, *, joined: bool = False, language: str = "") -> bool:
        """Take one more word; return False where it begins another number."""
        if value >= 1000:
            if value >= self._scale or joined:
                return False
            self._total += (self._current or 1) * value
            self._current = 0
            self._scale = value
        elif value >= 100:
            if joined or self._current > 9 or (self._current and value > 100):
                return False
            self._current = (self._current or 1) * value
        elif not self._fits(value, joined, language):
            return False
        else:
            is_eighty = language == "fr" and self._current % 100 == 4 and value == 20
            self._current += 76 if is_eighty else value
        self.is_empty = False
        return True

    def _fits(self, value: int, joined: bool, language: str) -> bool:
        """Return True if a number below 100 goes on with what was read so far."""
        below = self._current % 100
        if self.is_empty:
            return True
        if below == 0:
            # "one hundred and five", but not "hundert und fünf Stühle" of two numbers
            return value > 0 and (language == "en" or not joined)
        if language == "fr":
            is_sum = below in (60, 80) and value < 20
            is_eighty = below == 4 and value == 20 and not joined
            if is_sum or is_eighty:
                return True
        is_plain = language == "en" and joined  # "twenty and three" are two numbers
        return self.takes_unit and 0 < value < 10 and not is_plain

    def taken(self) -> Iterator[int]:
        """Yield the number, if there is one, and begin another."""
        if not self.is_empty:
            yield self._total + self._current
        self.__init__()  # type: ignore[misc]


def _value(word: str, language: str) -> int | None:
    value = _words(language).get(word)
    if value is None and language == "de":
        return _german(word)
    return value


@cache
def _words(language: str) -> dict[str, int]:
    words: dict[str, int] = {}
    for number, name in enumerate(_UNITS[language].split()):
        words[name.casefold()] = number
    for number, name in enumerate(_TENS[language].split(), 2):
        words[name.casefold()] = number * 10
    for number, name in enumerate(_ORDINALS[language].split(), 1):
        words[name.casefold()] = number
    words.update(_OTHERS[language])
    if language == "fr":
        words["vingts"] = 20
        words["une"] = 1
    return words


@cache
def _german_below_100() -> dict[str, int]:
    words = _words("de")
    below = {name: value for name, value in words.items() if value < 100}
    zero_to_twenty = _UNITS["de"].casefold().split()
    units = zero_to_twenty[1:10]
    units[0] = "ein"  # einundzwanzig, not einsundzwanzig
    for tens in _TENS["de"].casefold().split():
        for number, unit in enumerate(units, 1):
            below[f"{unit}und{tens}"] = words[tens] + number
    below["ein"] = 1
    return below


@cache
def _german(word: str) -> int | None:
    """Return the value of a compound such as zweihunderteinundvierzig or einundzwanzigste."""
    if word in ("ein", "eine", "einen"):
        return None
    # The longer ending first: "te" would leave the s of "ste" at the stem.
    for ending in ("ste", "te"):
        stem = _GERMAN_ENDINGS.sub("", word) if not word.endswith("e") else word
        if stem.endswith(ending):
            value = _german_compound(stem.removesuffix(ending))
            if value is not None:
                return value
        if stem in _words("de"):
            return _words("de")[stem]
    return _german_compound(word)


def _german_compound(word: str) -> int | None:
    below = _german_below_100()
    total = 0
    for name, scale in (("tausend", 1000), ("hundert", 100)):
        head, found, rest = word.partition(name)
        if not found:
            continue
        # Without a multiplier it is one: hundert, tausend.
        count = _german_compound(head) if head else 1
        if count is None:
            return None
        total += count * scale
        word = rest
    word = word.removeprefix("und") if total else word
    if not word:
        return total or None
    if word not in below:
        return None
    return total + below[word]


_DIGITS = {
    **{c: n for n, c in enumerate("〇一二三四五六七八九")},
    "零": 0,
    "两": 2,
    "兩": 2,
}
_SMALL = {"十": 10, "百": 100, "千": 1000}
_LARGE = {"万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8}
_NUMERALS = "".join([*_DIGITS, *_SMALL, *_LARGE])
_LONGEST_NUMERAL = 20
_RUN = re.compile(f"[{_NUMERALS}]+")
_MULTIPLE = re.compile(rf"(?<!\d)(\d{{1,12}}(?:\.\d{{1,12}})?)([{''.join(_LARGE)}])")
# A single numeral is often a part of a word: it counts before one of these.
_COUNTERS = frozenset(
    "月日年号號时時点點分秒个個台臺件枚脚本名週周倍円圆元块塊天次岁歳歲才张張条條位把杯人間间階层層番"
)


def _ideographic(text: str) -> Iterator[int]:
    """Yield the numbers in ideographs, such as 五月十二日, and 三万 or 3万."""
    for number, scale in _MULTIPLE.findall(text):
        yield round(float(number) * _LARGE[scale])
    for match in _RUN.finditer(text):
        run = match[0]
        start, end = match.span()
        after = text[end : end + 1]
        before = text[start - 1 : start]
        if len(run) == 1:
            # At the text's end it counts nothing, not even after 第.
            is_number = bool(after) and (after in _COUNTERS or before == "第")
            if not is_number:
                continue
        value = _numeral(run)
        if value is not None:
            yield value


def _numeral(run: str) -> int | None:
    """Return the value of 二〇二六 or 二百四十; None for what is no number."""
    if len(run) > _LONGEST_NUMERAL:
        return None
    if all(character in _DIGITS for character in run):
        return int("".join(str(_DIGITS[character]) for character in run))
    # total: what 万 and 億 have multiplied; part: the sum below the next of them; digit: the
    # last one, which waits for its unit.
    total = part = digit = 0
    for character in run:
        if character in _DIGITS:
            if digit:
                return None
            digit = _DIGITS[character]
        elif character in _SMALL:
            part += (digit or 1) * _SMALL[character]
            digit = 0
        else:
            if not part + digit:
                return None
            total += (part + digit) * _LARGE[character]
            part = digit = 0
    return total + part + digit
