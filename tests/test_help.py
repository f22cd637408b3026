"""The help of the program and of every command, taken from the command table."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from tests.kit.terminal import Terminal
from tierwise.cli.commands import COMMANDS
from tierwise.cli.program import load

WIDTH = 80
# Verbs that a command's first line may begin with.
VERBS = {
    "Add", "Approve", "Check", "Compare", "Continue", "Create", "Delete", "Download", "Estimate", "Explain",
    "Export", "Fill", "Label", "List", "Measure", "Open", "Restore", "Remove",
    "Run", "Serve",
    "Show", "Simulate", "Start", "Stop",
    "Train", "Try", "Turn", "Verify", "Write",
}  # fmt: skip


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield a command or group, then the commands inside it, each with the words to type."""
    yield name, command
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            yield from _commands(inner, f"{name} {inner.name}")


EVERY = dict(pair for row in COMMANDS for pair in _commands(load(row), row.name))


@pytest.mark.parametrize("name", EVERY)
def test_every_command_explains_itself(
    name: str, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The help mentions every option, and its tables are whole on a terminal of 80 columns."""
    (tmp_path / "routing_rules").mkdir()
    (tmp_path / "flows").mkdir()
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    done = terminal(*name.split(), "--help", cwd=tmp_path)
    assert done.code == 0
    assert done.err == ""
    command = EVERY[name]
    for parameter in command.get_params(typer.Context(command)):
        words = {*parameter.opts, parameter.display_name_raw} - {""}
        assert parameter.hidden or any(word in done.out for word in words), (
            parameter.name
        )
        assert parameter.help, f"{parameter.name} has no help"
    for line in done.out.splitlines():
        assert len(line) <= WIDTH
        if line[:1] in "│╭╰" and line.strip():
            assert line[-1] in "│╮╯", line


@pytest.mark.parametrize("name", EVERY)
def test_a_commands_first_line_is_a_sentence_in_the_imperative(name: str) -> None:
    first, *rest = (EVERY[name].help or "").splitlines()
    assert first.split()[0].rstrip(",") in VERBS
    assert first.endswith(".")
    assert not rest or rest[0] == "", "the first line is a paragraph of its own"


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_the_table_has_the_first_line_of_each_command(row: Any) -> None:
    assert EVERY[row.name].help.splitlines()[0] == row.help


def test_the_programs_help_shows_each_command_on_one_line(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    printed = terminal("--help", cwd=tmp_path).out
    for row in COMMANDS:
        line = rf"^│ {row.name} +{re.escape(row.help.replace('`', ''))} *│$"
        assert re.search(line, printed, re.MULTILINE), row.name
    panels = re.findall(r"^╭─ (\w+) ─", printed, re.MULTILINE)
    assert panels == [
        "Options",
        "Run",
        "Inspect",
        "Decide",
        "Prove",
        "Operate",
        "Author",
    ]


def test_the_programs_help_imports_no_command() -> None:
    code = (
        "import sys; sys.argv = ['tierwise', '--help']\n"
        "from tierwise.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"places = {[row.place.partition(':')[0] for row in COMMANDS]}\n"
        "print([name for name in places if f'tierwise.cli.{name}' in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_a_misspelt_command_says_what_was_meant(
    terminal: Terminal, tmp_path: Path
) -> None:
    done = terminal("shwo", cwd=tmp_path)
    assert done.code == 2
    assert "Did you mean 'show'?" in done.err
    assert "Did you mean 'verify'?" in terminal("audit", "veify", cwd=tmp_path).err


@pytest.mark.parametrize("module", ["program", "doctor"])
def test_ctrl_c_while_python_loads_the_command_ends_it(module: str) -> None:
    """Also where Python drops the KeyboardInterrupt, as in a finalizer."""
    code = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "tierwise.cli.{module}":
            Last()
sys.meta_path.insert(0, Stop())
sys.argv = ["tierwise", "doctor"]
from tierwise.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
