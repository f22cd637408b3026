"""The hash of a project's code: what changes it, and what does not."""

from __future__ import annotations

import ast
import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tierwise.records import text_hash
from tierwise.steps.code import code_hash

_numbers = itertools.count()

RULES = '''
"""Checks of this project."""
import functools
import json
import re
from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel, field_validator

from {package}.words import FORBIDDEN, is_polite
from tierwise.steps.checks import at_most_words, check
from tierwise.steps.correctness import rubric, same

LIMIT = 3
PATTERN = re.compile("x+")
TABLE = {{"a": 1, "b": [2, 3]}}
NAMES = {{"anna", "bob"}}
LIST = Path(__file__).with_name("list.txt")
_seen = {{}}


class Output(BaseModel):
    """An output."""

    label: str

    @field_validator("label")
    @classmethod
    def _known(cls, label):
        if label == "nonsense":
            raise ValueError("nonsense")
        return label


class Client:
    """It has a state that changes."""

    def __init__(self, name):
        self.name = name
        self.calls = 0

    def ask(self):
        self.calls += 1
        return self.name


CLIENT = Client("one")


def helper(text):
    """Help."""
    return len(text) > LIMIT


@check("house")
def house_rule(output, document):
    """Hold the house rule."""
    _seen[output.label] = True
    if PATTERN.search(output.label) or output.label in NAMES:
        return "no"
    if not helper(output.label) or output.label in TABLE:
        return "short"
    if output.label in LIST.read_text().split():
        return "listed"
    return None if is_polite(output.label) else f"not polite: {{CLIENT.ask()}}"


def measure(output, expected, *, least=Decimal("0.5")):
    from {package} import late
    return late.right(output, expected) and FORBIDDEN != output


def nearby(output, expected):
    from .late import right
    from . import words
    return right(output, expected) and words.is_polite(output)


def within(limit):
    def correct(output, expected):
        return abs(output["n"] - expected["n"]) <= limit
    return correct


@functools.lru_cache
def cached(text):
    return text.upper()


def shouting(output, expected):
    return cached(output["a"]) == expected["a"]


label_rule = same("label")
length_rule = at_most_words("label")
criteria = rubric("is polite", needs=within(2))
short = lambda output, expected: output["a"] == LIMIT
'''
WORDS = 'FORBIDDEN = ("damn",)\n\n\ndef is_polite(text):\n    return not any(word in text for word in FORBIDDEN)\n'
LATE = "import {package}.deep as deep\n\n\ndef right(output, expected):\n    return deep.same(output, expected)\n"
DEEP = "def same(output, expected):\n    return output == expected\n"


@pytest.fixture
def write(tmp_path: Path) -> Iterator[object]:
    """Write a package of a project's rules under a name of its own, and import it."""
    sys.path.insert(0, str(tmp_path))

    def build(**changed: tuple[str, str]) -> ModuleType:
        package = f"house_{next(_numbers)}"
        folder = tmp_path / package
        folder.mkdir()
        files = {"rules": RULES, "words": WORDS, "late": LATE, "deep": DEEP}
        for name, text in files.items():
            source = text.format(package="PACKAGE") if "{package}" in text else text
            if name in changed:
                old, new = changed[name]
                assert old in source, old
                source = source.replace(old, new)
            (folder / f"{name}.py").write_text(source.replace("PACKAGE", package))
        listed = changed.get("data", ("", "one two"))[1]
        (folder / "list.txt").write_text(listed)
        (folder / "__init__.py").write_text("")
        importlib.invalidate_caches()
        return importlib.import_module(f"{package}.rules")

    yield build
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("house_")]:
        del sys.modules[name]


def _hashed(module: ModuleType, name: str) -> str:
    """Return the hash with the package's own name left out: it differs for each import."""
    from tierwise.steps import code

    reader = code._Reader()
    reader.read(getattr(module, name))
    package = module.__name__.partition(".")[0]
    return "\n".join(reader.parts).replace(package, "PACKAGE")


CHANGES = {
    "the check's own line": ("house_rule", {"rules": ('return "no"', "return None")}),
    "a function that it calls": ("house_rule", {"rules": ("> LIMIT", ">= LIMIT")}),
    "a constant of that function": (
        "house_rule",
        {"rules": ("LIMIT = 3", "LIMIT = 4")},
    ),
    "a pattern": ("house_rule", {"rules": ('"x+"', '"y+"')}),
    "a table": ("house_rule", {"rules": ("[2, 3]", "[2, 4]")}),
    "a set": ("house_rule", {"rules": ('"bob"', '"bert"')}),
    "a file that it reads": ("house_rule", {"data": ("", "one two three")}),
    "a function of another module": ("house_rule", {"words": ("not any", "any")}),
    "a constant of another module": ("house_rule", {"words": ("damn", "darn")}),
    "a client's address": ("house_rule", {"rules": ('Client("one")', 'Client("two")')}),
    "a client's class": ("house_rule", {"rules": ("return self.name", "return 'x'")}),
    "the measure's own line": ("measure", {"rules": ("and FORBIDDEN", "or FORBIDDEN")}),
    "a default of the measure": ("measure", {"rules": ('"0.5"', '"0.6"')}),
    "a module imported late": ("measure", {"late": ("return deep", "return not deep")}),
    "a module imported by that": ("measure", {"deep": ("==", "!=")}),
    "a module imported late by a relative name": (
        "nearby",
        {"late": ("return deep", "return not deep")},
    ),
    "a sibling module imported late": ("nearby", {"words": ("not any", "any")}),
    "the field of a built-in": (
        "label_rule",
        {"rules": ('same("label")', 'same("text")')},
    ),
    "the field of a built-in check": (
        "length_rule",
        {"rules": ('at_most_words("label")', 'at_most_words("text")')},
    ),
    "a criterion": ("criteria", {"rules": ("is polite", "is rude")}),
    "what a rubric needs": ("criteria", {"rules": ("within(2)", "within(3)")}),
    "behind a cache": ("shouting", {"rules": (".upper()", ".lower()")}),
    "a lambda": ("short", {"rules": ('["a"] == LIMIT', '["b"] == LIMIT')}),
    "what a lambda names": ("short", {"rules": ("LIMIT = 3", "LIMIT = 4")}),
    "a validator": ("Output", {"rules": ('"nonsense":', '"bosh":')}),
}
NO_CHANGES = {
    "a comment": {"rules": ("LIMIT = 3", "LIMIT = 3  # a comment\n# another")},
    "a docstring": {"rules": ('"""Hold the house rule."""', '"""Hold it."""')},
    "layout": {"rules": ('return "no"', 'return (\n            "no"\n        )')},
    "another function": {"rules": ("<= limit", "< limit")},
    "a new name": {"rules": ("LIMIT = 3", "LIMIT = 3\nOTHER = 4")},
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_hash_changes_with(what: str, write) -> None:  # type: ignore[no-untyped-def]
    name, changed = CHANGES[what]
    assert _hashed(write(), name) != _hashed(write(**changed), name)


@pytest.mark.parametrize("what", NO_CHANGES)
def test_the_hash_does_not_change_with(what: str, write) -> None:  # type: ignore[no-untyped-def]
    changed = NO_CHANGES[what]
    assert _hashed(write(), "house_rule") == _hashed(write(**changed), "house_rule")


def test_running_a_check_does_not_change_its_hash(write) -> None:  # type: ignore[no-untyped-def]
    rules = write()
    before = code_hash(rules.house_rule)
    for label in ("a long label", "damn it all", "xx"):
        rules.house_rule(rules.Output(label=label), None, {})
    rules.shouting({"a": "b"}, {"a": "B"})
    assert rules.CLIENT.calls == 1
    assert code_hash(rules.house_rule) == before


def test_equal_code_has_the_same_hash_in_another_process(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import subprocess

    rules = write()
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {rules.__name__} as r;"
        "from tierwise.steps.code import code_hash; print(code_hash(r.house_rule, r.measure))"
    )
    hashes = set()
    for seed in ("0", "1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(done.stdout.strip())
    assert hashes == {code_hash(rules.house_rule, rules.measure)}


def test_code_without_a_source_is_hashed_by_its_bytecode() -> None:
    def made(text: str) -> object:
        scope: dict[str, object] = {"__name__": "__main__"}
        exec(text, scope)
        return scope["f"]

    one = code_hash(made("def f(a):\n    return a + 1"))
    assert one == code_hash(made("def f(a):\n    return a + 1"))
    assert one != code_hash(made("def f(a):\n    return a + 2"))
    assert one != code_hash(made("def f(a):\n    return a * 1"))


# What the code of tierwise's own checks and measures is today. Where this fails, decide: does any
# answer get another verdict? Then raise BUILT_IN_VERSION, which voids certificates. Then write the
# new value here.
BUILT_IN = {
    "checks": "5a88c30eeb6832e6",
    "correctness": "4394ff674c84cd5a",
}


@pytest.mark.parametrize("module", BUILT_IN)
def test_a_change_of_a_built_in_check_or_measure_is_deliberate(module: str) -> None:
    from tierwise.steps import code

    assert code.BUILT_IN_VERSION == 1
    path = Path(code.__file__).with_name(f"{module}.py")
    source = code._normalised(ast.parse(path.read_text()))
    assert text_hash(source)[:16] == BUILT_IN[module]


def test_a_raised_version_changes_the_hash_of_that_check_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Certificates that rest on other checks stay valid."""
    from tierwise.steps import checks, code, correctness

    name = "tierwise.steps.checks.numbers_are_in_the_document"
    others = (
        checks.evidence_is_quoted,
        checks.label_is_allowed,
        correctness.same("label"),
    )
    changed = (checks.numbers_are_in_the_document, checks)
    before = [code_hash(value) for value in (*others, *changed)]
    monkeypatch.setitem(code.RAISED_VERSIONS, name, 99)
    after = [code_hash(value) for value in (*others, *changed)]
    assert after[:3] == before[:3]
    assert after[3] != before[3]
    assert after[4] != before[4]
    assert code.built_in_version(f"{name}.<locals>.inner") == 99


def test_the_checks_with_raised_versions_exist() -> None:
    """A misspelt name would void nothing."""
    import importlib

    from tierwise.steps import code

    for name in code.RAISED_VERSIONS:
        module, _, function = name.rpartition(".")
        assert hasattr(importlib.import_module(module), function)
