"""Kill a run while its calls are in provider batches, and see that each item is billed once.

    python -m tests.batch_kill
    python -m tests.batch_kill --kills 3 --documents 10 --database sqlite --seed 7

A job takes documents through two steps in batches. It is ended by SIGKILL at a random moment, before,
during or after a submission, while it waits or collects, and started again. The stand-in of the batch
API outlives it and keeps the invoice. An item may be billed again only where its submission was under
way when the job was killed; such submissions are printed.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from tests.kit.batch_kills import LATENCY_S, Moment, calm_seconds, killed_once
from tests.kit.ledgers import DATABASES

REQUESTS = 10  # that an undisturbed job makes, about


def main() -> None:
    """Print a row for each kill; exit 1 where one is not as we claim."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--database", choices=DATABASES, nargs="+", default=DATABASES)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        calm_s = calm_seconds(Path(folder), options.documents)
    print(  # noqa: T201 - it is a command here
        "| ledger | killed after | batches | open when killed | items of a submission under way "
        "| billed again | results | sums |\n|---|---|---|---|---|---|---|---|"
    )
    held = []
    for database in options.database:
        for number in range(options.kills):
            moment = Moment(moments.uniform(0, calm_s))
            if number % 2:
                after = moments.randint(1, REQUESTS)
                # At once is while the provider works on the request.
                later_s = moments.choice([0.0, moments.uniform(0, LATENCY_S)])
                moment = Moment(later_s, after)
            with tempfile.TemporaryDirectory() as folder:
                report = killed_once(
                    database,
                    Path(folder),
                    documents=options.documents,
                    moment=moment,
                )
            held.append(report.holds)
            results = "the same" if report.same_results else "NOT THE SAME"
            sums = "equal" if report.same_sum else "NOT EQUAL"
            late = "" if report.was_alive else " (was done)"
            print(  # noqa: T201
                f"| {database} | {report.moment}{late} | {report.batches} "
                f"| {report.open_when_killed} | {report.under_way} | {report.again} "
                f"| {results} | {sums} |",
                flush=True,
            )
    raise SystemExit(not all(held))


if __name__ == "__main__":
    main()
