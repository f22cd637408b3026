"""Run the test bed and print its table.

    python -m tests.oncall                 # all but the week: `make oncall-test`
    python -m tests.oncall --week          # the week in 20 minutes: `make oncall-week`
    python -m tests.oncall --only 429      # cases with this word in their name

The undisturbed case goes first and alone, as the others are held against it. The others wait most
of the time, so several run at once.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.oncall.table import (
    FULL,
    ROWS,
    SEED,
    UNDISTURBED,
    new_seed,
    read_lists,
    read_rows,
    table,
)

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parent.parent
_WEEK = "test_week.py"
_PYTEST = (sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider")


def main() -> int:
    """Run the cases; return 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="WORD", help="cases with this in their name")
    parser.add_argument("--week", action="store_true", help="the week, and only that")
    parser.add_argument("--full", action="store_true", help="a long run of 10 minutes")
    parser.add_argument("--at-once", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=new_seed())
    options = parser.parse_args()
    begun = time.monotonic()
    print(machine(), flush=True)
    print(f"seed {options.seed}: --seed {options.seed} repeats it\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="tierwise-oncall-rows-") as name:
        environment = os.environ | {ROWS: name, SEED: str(options.seed)}
        if options.full:
            environment[FULL] = "1"
        failed = run_all(cases(options, environment), options.at_once, environment)
        kept = read_rows(Path(name))
        if kept:
            print("\n" + table(kept))
        for told in read_lists(Path(name)):
            print("\n" + told)
    minutes = (time.monotonic() - begun) / 60
    print(f"\n{minutes:.1f} minutes in all")
    for case in failed:
        print(f"FAILED {case}")
    return int(bool(failed))


def cases(options: argparse.Namespace, environment: Mapping[str, str]) -> list[str]:
    """The tests to run, by pytest's names for them."""
    files = [f"--ignore={_HERE / _WEEK}", str(_HERE)]
    if options.week:
        files = [str(_HERE / _WEEK)]
    command = [*_PYTEST, "--collect-only", *files]
    listed = subprocess.run(
        command,
        cwd=_REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line for line in listed.stdout.splitlines() if "::" in line]
    word = options.only or ""
    return [name for name in names if word in name or UNDISTURBED in name]


def run_all(
    names: Sequence[str], at_once: int, environment: Mapping[str, str]
) -> list[str]:
    """Run the undisturbed case alone, then the others; return the names of those that failed."""
    calm = [name for name in names if UNDISTURBED in name]
    failed = [name for name in calm if not run_one(name, environment)]
    with ThreadPoolExecutor(at_once) as pool:
        others = [name for name in names if name not in calm]
        passed = pool.map(lambda name: run_one(name, environment), others)
        failed += [
            name for name, is_good in zip(others, passed, strict=True) if not is_good
        ]
    return failed


def run_one(name: str, environment: Mapping[str, str]) -> bool:
    """Run one case in a process of its own, as it starts and kills many; print how it ended."""
    begun = time.monotonic()
    done = subprocess.run(
        [*_PYTEST, "-x", "-rs", name],
        cwd=_REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    seconds = time.monotonic() - begun
    verdict = "passed" if done.returncode == 0 else "FAILED"
    case = name.rpartition("::")[2]
    skipped = [line for line in done.stdout.splitlines() if "SKIPPED" in line]
    print(f"{verdict} in {seconds:.0f} s: {case} {' '.join(skipped)}", flush=True)
    if done.returncode != 0:
        print(done.stdout, flush=True)
    return done.returncode == 0


def machine() -> str:
    """Return the machine and the date, for the table's heading."""
    now = datetime.datetime.now().astimezone()
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f}, {now:%Y-%m-%d %H:%M}"
    )


if __name__ == "__main__":
    sys.exit(main())
