"""How long the smallest things take: importing tierwise, and `tierwise --help`; beside a bare interpreter.

python -m benchmarks.startup
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import tierwise": ["-c", "import tierwise"],
    "tierwise --help": ["-m", "tierwise", "--help"],
}


def seconds(arguments: list[str], times: int = 11) -> float:
    """Median wall time of a command."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - begun)
    return median(taken)


def main() -> None:
    print("| command | median of 11, s |\n|---|---|")
    for name, arguments in COMMANDS.items():
        print(f"| `{name}` | {seconds(arguments):.3f} |")


if __name__ == "__main__":
    main()
