"""What budgets cost a call: claim and settle in a SQLite ledger, without a budget and under one and three.

    python -m benchmarks.money

128 calls are under way at any time, and a call takes no time itself. The CPU is this process's.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from decimal import Decimal
from pathlib import Path

from tests.kit.ledgers import REPLY, RUN, attempt
from tierwise.ledger import Ledger
from tierwise.policy.budget import ReservationRequest

IN_FLIGHT = 128


async def calls(
    ledger: Ledger, series: str, number: int, limits: dict[str, Decimal]
) -> None:
    """So many calls, each claimed and settled."""
    names = iter(f"{series}-{n}" for n in range(number))

    async def worker() -> None:
        for name in names:
            reservation = (
                ReservationRequest(id=name, usd=Decimal("0.001"), limits=limits)
                if limits
                else None
            )
            await ledger.claim(name, reservation=reservation)
            await ledger.settle(
                RUN.id, attempt(id=name, call_hash=name, cost=Decimal("0.0004")), REPLY
            )

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=5000)
    options = parser.parse_args()
    print(
        "| budgets | calls/s | CPU ms a call | ledger, bytes a call |\n|---|---|---|---|"
    )
    for budgets in (0, 1, 3):
        limits = {f"budget {n}": Decimal(1000) for n in range(budgets)}
        with (
            tempfile.TemporaryDirectory() as folder,
            Ledger.open(root=Path(folder)) as ledger,
        ):
            ledger.start_run(RUN)
            asyncio.run(calls(ledger, "first", 500, limits))
            file = Path(folder) / ".tierwise" / "ledger.db"
            before = file.stat().st_size
            cpu = time.process_time()
            begun = time.monotonic()
            asyncio.run(calls(ledger, "measured", options.calls, limits))
            seconds = time.monotonic() - begun
            busy = time.process_time() - cpu
            size = (file.stat().st_size - before) / options.calls
            print(
                f"| {budgets} | {options.calls / seconds:.0f} | {busy / options.calls * 1000:.2f} | {size:.0f} |"
            )


if __name__ == "__main__":
    main()
