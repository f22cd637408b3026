"""The command line as a test uses it: in this process, with its output and exit code."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Terminal:
    """`terminal("run", "support_inbox", cwd=project)`."""

    def __call__(self, *arguments: object, cwd: Path) -> Done:
        from tierwise.cli import main

        before, argv = Path.cwd(), sys.argv
        out, err = io.StringIO(), io.StringIO()
        sys.argv = ["tierwise", *map(str, arguments)]
        before_variables = set(os.environ)
        os.chdir(cwd)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = _exit_code(main)
        finally:
            os.chdir(before)
            sys.argv = argv
            for name in set(os.environ) - before_variables:
                if name.startswith("PREFECT_"):
                    del os.environ[name]
        return Done(code, out.getvalue(), err.getvalue())


def _exit_code(main: object) -> int:
    try:
        main()  # type: ignore[operator]
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    return 0


class OwnProcess(Terminal):
    """The same in a process of its own, for projects with modules that this repository lacks."""

    def __call__(self, *arguments: object, cwd: Path) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "tierwise", *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)
