"""Kill a run again and again, and see that nothing is lost and nothing paid twice but what was under way.

    python -m benchmarks.kill
    python -m benchmarks.kill --documents 60 --kills 5 --flow-kills 0 --database sqlite

A job classifies and summarises documents with a provider that counts. It runs once undisturbed. Then, with a new
ledger, it is ended by SIGKILL at random moments and started again, until it is done. The job uses what a flow uses
(`recorded_run`, `read_documents`, steps, `write_documents`), but calls its steps itself, as Prefect takes seconds to
start; the flow support_inbox is killed too, a few times, on one Prefect server.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.kit.ledgers import DATABASES, migrated_url
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin

LABELS = ["billing", "delivery", "praise"]
LATENCY_S = 0.03
PRELOAD = [
    "benchmarks.kill",
    "tasks.classify",
    "tasks.summarize",
    "tierwise.gateway.lean_lane",
    "tiktoken",
]
PRELOAD += [
    "py3langid",
    "ruamel.yaml",
    "alembic.command",
]  # what a run imports when it first needs it
RULES = "{version: 1, routes: [{name: default, try: [small]}]}"

Work = Callable[[Path, Path], None]  # source, where results go


@dataclass(frozen=True)
class Report:
    """What came of a job that was killed. `in_flight` are calls that were claimed when it was."""

    documents: int
    kills: int
    distinct: int
    requests: int
    in_flight: int
    same_bytes: bool
    complete: bool  # each document once, in its place

    @property
    def again(self) -> int:
        """Calls that were made twice."""
        return self.requests - self.distinct

    @property
    def holds(self) -> bool:
        """Whether it is as we claim."""
        return self.again <= self.in_flight and self.same_bytes and self.complete


def main() -> None:
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ |= {
        "DO_NOT_TRACK": "1",
        "PYTHONWARNINGS": "ignore::RuntimeWarning",
    }  # for those it starts
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--flow-kills",
        type=int,
        default=4,
        help="of the flow, with a fifth of the documents",
    )
    parser.add_argument("--database", choices=DATABASES, nargs="+", default=DATABASES)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(
        "| what | ledger | documents | kills | different calls | calls made | made again | in flight when killed ",
        end="",
    )
    print("| results | each document |\n|---|---|---|---|---|---|---|---|---|---|")
    held = [
        told("job", job, d, options.documents, options.kills, options.seed)
        for d in options.database
    ]
    if options.flow_kills:
        with prefect() as url:
            work = partial(flow, url)
            number = max(10, options.documents // 5)
            held += [
                told("flow", work, d, number, options.flow_kills, options.seed)
                for d in options.database
            ]
    raise SystemExit(not all(held))


def told(
    what: str, work: Work, database: str, documents: int, kills: int, seed: int
) -> bool:
    """Print one row; whether it is as we claim."""
    with tempfile.TemporaryDirectory() as folder:
        r = killed(
            work, database, Path(folder), documents=documents, kills=kills, seed=seed
        )
    results = "the same bytes" if r.same_bytes else "NOT THE SAME"
    each = "once" if r.complete else "MISSING OR TWICE"
    row = f"{what} | {database} | {r.documents} | {r.kills} | {r.distinct} | {r.requests} | {r.again} | {r.in_flight}"
    print(f"| {row} | {results} | {each} |", flush=True)
    return r.holds


def killed(
    work: Work,
    database: str,
    folder: Path,
    *,
    documents: int,
    kills: int,
    seed: int = 1,
) -> Report:
    """Run some work undisturbed and, with a ledger of its own, killed at so many random moments."""
    source = written(folder / "letters.jsonl", documents)
    with Standin(latency_s=LATENCY_S) as standin:
        project = make_project(
            folder / "project", model("small", standin.url), rules=RULES
        )
        started(
            work, project, source, folder / "calm", migrated_url("sqlite", folder)
        ).join()
        distinct = standin.count
        standin.requests.clear()
        url = migrated_url(database, made(folder / "stormy-ledger"))
        moments = random.Random(seed)
        in_flight = 0
        made_kills = 0
        for after in sorted(moments.randrange(distinct) for _ in range(kills)):
            process = started(work, project, source, folder / "stormy", url)
            wait_until(process, standin, after)
            time.sleep(moments.uniform(0, 2 * LATENCY_S))
            made_kills += process.is_alive()
            process.kill()
            process.join()
            in_flight += open_claims(url, process.pid)
        last = started(work, project, source, folder / "stormy", url)
        last.join()
        bodies = {
            json.dumps(request.body, sort_keys=True) for request in standin.requests
        }
        assert last.exitcode == 0
        assert len(bodies) == distinct
        return Report(
            documents=documents,
            kills=made_kills,
            distinct=distinct,
            requests=standin.count,
            in_flight=in_flight,
            same_bytes=contents(folder / "calm") == contents(folder / "stormy"),
            complete=ids(folder / "stormy")
            == [f"letters.jsonl#{n}" for n in range(documents)],
        )


def started(
    work: Work, project: Path, source: Path, out: Path, ledger_url: str
) -> BaseProcess:
    """The work in a process of its own, forked from one that has imported everything."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(
        target=in_process, args=(work, project, source, out, ledger_url)
    )
    process.start()
    return process


def in_process(
    work: Work, project: Path, source: Path, out: Path, ledger_url: str
) -> None:
    """Where the work is done."""
    from tierwise.orchestrate.process_state import engine

    os.environ["TIERWISE_LEDGER_URL"] = ledger_url
    os.chdir(project)
    work(source, out)
    engine().close()


def job(source: Path, out: Path) -> None:
    """What a flow does, without Prefect."""
    from tasks.classify import classify
    from tasks.summarize import summarize
    from tierwise import Batch, read_documents, recorded_run, write_documents

    def steps(batch: Batch) -> Batch:
        return summarize.fn(classify.fn(batch, labels=LABELS), max_words=40)

    with recorded_run(), ThreadPoolExecutor(4) as pool:
        write_documents(
            pool.map(
                steps, read_documents(source, sensitivity="internal", batch_size=10)
            ),
            out,
        )


def flow(prefect_url: str, source: Path, out: Path) -> None:
    """The flow that sorts, summarises and answers messages."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.support_inbox import support_inbox

    with temporary_settings({PREFECT_API_URL: prefect_url}):
        support_inbox(source=source, out=out)


@contextmanager
def prefect() -> Iterator[str]:
    """One Prefect server for all that is started meanwhile. Gives its address."""
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield str(get_current_settings().api.url)


def written(path: Path, documents: int) -> Path:
    """A JSON Lines file of letters, no two the same."""
    text = "The desk number {n} has not arrived, and nobody at your office answers the telephone."
    path.write_text(
        "".join(
            json.dumps({"id": n, "text": text.format(n=n)}) + "\n"
            for n in range(documents)
        )
    )
    return path


def wait_until(process: BaseProcess, standin: Standin, count: int) -> None:
    """Until so many requests have come, or the process has ended."""
    while process.is_alive() and standin.count < count:
        time.sleep(0.002)


def open_claims(ledger_url: str, pid: int | None) -> int:
    """How many calls a process has claimed and neither paid nor given up."""
    from sqlalchemy import create_engine, text

    query = text("SELECT count(*) FROM calls WHERE owner LIKE :owner")
    database = create_engine(ledger_url)
    try:
        with database.connect() as connection:
            return int(connection.execute(query, {"owner": f"% {pid} %"}).scalar_one())
    finally:
        database.dispose()


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder; what a killed process left behind half written is not one."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


def ids(folder: Path) -> list[str]:
    return [
        json.loads(line)["id"]
        for line in (folder / "outcomes.jsonl").read_text().splitlines()
    ]


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
