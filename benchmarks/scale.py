"""What running in several processes holds and costs.

    python -m benchmarks.scale killed --kind dask ray    a worker ended by SIGKILL half-way, PostgreSQL
    python -m benchmarks.scale ledger                    bytes a document in SQLite and PostgreSQL, with how many calls
    python -m benchmarks.scale prefect                   what a task run costs the server: CPU, bytes
    python -m benchmarks.scale shards --processes 1 2    documents a second of sharded jobs on one PostgreSQL ledger
    python -m benchmarks.scale reading                   what a shard costs that reads past the others' documents

`killed` needs the extras dask and ray. Each starts its own servers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks.kill import RULES, ids, made, open_claims, prefect, written
from tests.kit.ledgers import DATABASES, migrated_url
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin, unused_address

LETTER = (
    "Dear Larkfold team, the desk number {n} that I ordered three weeks ago has not arrived, and the tracking page "
    "has said nothing new since Monday. I work from home and have been eating my lunch over the keyboard ever since. "
    "Nobody at your office answers the telephone, and my two letters were not answered either. Please tell me when it "
    "comes, or give me my money back. I would also like to know why the invoice names a chair. Yours, customer {n}."
)
STEPS = 3  # of the flow support_inbox


@dataclass(frozen=True)
class Killed:
    """What came of a flow on two worker processes, one of which was ended half-way."""

    kind: str
    documents: int
    distinct: int  # different calls
    requests: int
    in_flight: int  # calls that the killed worker had claimed and not paid
    seconds: float
    complete: bool  # each document once, all of its outcomes accepted
    apart: bool  # the flow's own process made no calls
    # files of Prefect or the spool that hold a document's words afterwards
    left: tuple[str, ...]

    @property
    def again(self) -> int:
        """Calls that were made twice."""
        return self.requests - self.distinct


def killed(
    kind: str,
    folder: Path,
    prefect_url: str,
    prefect_database: Path,
    documents: int = 400,
) -> Killed:
    """Run support_inbox over confidential letters with a task runner's two workers, and kill one half-way."""
    url = migrated_url("postgresql", folder)
    word = "kennwort-zander"
    source = written(folder / "letters.jsonl", documents)
    source.write_text(source.read_text().replace("telephone", word))
    with (
        Standin(latency_s=0.05) as provider,
        (folder / "log.txt").open("w") as log,
        ExitStack() as stack,
    ):
        root = make_project(
            folder / "project", model("small", provider.url), rules=RULES
        )
        env = {
            **os.environ,
            **variables(kind, url),
            "PREFECT_API_URL": prefect_url,
            "PREFECT_HOME": str(folder / "home"),
        }
        if kind == "ray":
            env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
            env["TIERWISE_CLUSTER"] = stack.enter_context(ray_cluster(env))
        begun = time.monotonic()
        flow = subprocess.Popen(
            [
                *FLOW,
                "--source",
                str(source),
                "--out",
                "out",
                "--sensitivity",
                "confidential",
            ],
            cwd=root,
            env=env,
            stdout=log,
            stderr=log,
        )
        try:
            half = documents * STEPS // 2
            workers = claimants(
                url, lambda found: len(found) > 1 and provider.count >= half, flow
            )
            in_flight = kill(min(workers - {flow.pid}), url)
            done = flow.wait(timeout=400)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            raise SystemExit(
                f"{error}\n{(folder / 'log.txt').read_text()[-5000:]}"
            ) from None
        finally:
            flow.kill()
        seconds = time.monotonic() - begun
    if done != 0:
        raise SystemExit((folder / "log.txt").read_text()[-5000:])
    bodies = {json.dumps(request.body, sort_keys=True) for request in provider.requests}
    lines = [
        json.loads(line)
        for line in (root / "out" / "outcomes.jsonl").read_text().splitlines()
    ]
    accepted = all(
        o["status"] == "accepted" for line in lines for o in line["outcomes"].values()
    )
    each_once = ids(root / "out") == [f"letters.jsonl#{n}" for n in range(documents)]
    return Killed(
        kind=kind,
        documents=documents,
        distinct=len(bodies),
        requests=provider.count,
        in_flight=in_flight,
        seconds=seconds,
        complete=accepted and each_once,
        apart=flow.pid not in workers,
        left=tuple(
            holding(word, folder / "home", root / ".tierwise", prefect_database)
        ),
    )


FLOW = [sys.executable, "-m", "tierwise", "run", "support_inbox"]


@contextmanager
def ray_cluster(env: Mapping[str, str]) -> Iterator[str]:
    """A Ray cluster of two workers with these variables. Gives its address.

    With ports of its own choice Ray waits 15 s for its agents to tell them, which is too short for a busy machine.
    """
    own = (
        "port",
        "dashboard-agent-grpc-port",
        "dashboard-agent-listen-port",
        "runtime-env-agent-port",
    )
    ports = {
        name: unused_address().rpartition(":")[2]
        for name in (*own, "metrics-export-port")
    }
    start = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        "--num-cpus=2",
    ]
    flags = [
        "--include-dashboard=false",
        "--disable-usage-stats",
        *(f"--{name}={port}" for name, port in ports.items()),
    ]
    with subprocess.Popen(
        [*start, *flags], env=dict(env), stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdout is not None
        try:
            address = next(
                found[1]
                for line in cluster.stdout
                if (found := re.search(r"--address='(.+?)'", line))
            )
            threading.Thread(target=cluster.stdout.read, daemon=True).start()
            yield address
        finally:
            cluster.terminate()


def variables(kind: str, ledger_url: str) -> dict[str, str]:
    """What makes a flow run on two workers."""
    return {
        "TIERWISE_TASK_RUNNER": kind,
        "TIERWISE_WORKERS": "2",
        "TIERWISE_LEDGER_URL": ledger_url,
    }


def kill(pid: int, ledger_url: str) -> int:
    """End a process at once; gives how many calls it had claimed and not paid."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.5)  # what it sent to the database arrives
    in_flight = open_claims(ledger_url, pid)
    os.kill(pid, signal.SIGKILL)
    return in_flight


def claimants(
    ledger_url: str, enough: Callable[[set[int]], bool], flow: subprocess.Popen[bytes]
) -> set[int]:
    """The processes that claim calls, watched until there are enough of them."""
    from sqlalchemy import create_engine, text

    found: set[int] = set()
    database = create_engine(ledger_url)
    try:
        while not enough(found):
            if flow.poll() is not None:
                raise RuntimeError(
                    f"the flow ended early, after these had worked: {found}"
                )
            with database.connect() as connection:
                owners = connection.execute(
                    text("SELECT owner FROM calls WHERE owner IS NOT NULL")
                ).scalars()
                found |= {int(owner.split()[1]) for owner in owners}
            time.sleep(0.02)
    finally:
        database.dispose()
    return found


def holding(word: str, *places: Path) -> Iterator[str]:
    """The files at these places that hold a word; a database comes with its side files, and the ledger is left out."""
    for place in places:
        for path in (
            place.rglob("*") if place.is_dir() else place.parent.glob(f"{place.name}*")
        ):
            if (
                path.is_file()
                and not path.name.startswith("ledger.db")
                and word.encode() in path.read_bytes()
            ):
                yield str(path)


@contextmanager
def server() -> Iterator[tuple[str, Path]]:
    """A Prefect server: its address, and the file of its database."""
    from prefect.settings import get_current_settings

    with prefect() as url:
        database = get_current_settings().server.database.connection_url
        assert database is not None
        yield url, Path(database.get_secret_value().partition("///")[2])


def main() -> None:
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", choices=["killed", "ledger", "prefect", "shards", "reading"]
    )
    parser.add_argument(
        "--kind", choices=["dask", "ray"], nargs="+", default=["dask", "ray"]
    )
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    if options.what == "killed":
        tell_killed(options.kind, options.documents)
    elif options.what == "ledger":
        tell_ledger(options.documents)
    elif options.what == "prefect":
        tell_prefect(options.documents)
    elif options.what == "shards":
        tell_shards(options.processes, options.documents)
    else:
        tell_reading()


def tell_killed(kinds: list[str], documents: int) -> None:
    print(
        "| task runner | documents | different calls | calls made | made again ", end=""
    )
    print(
        "| in flight when killed | each document | s |\n|---|---|---|---|---|---|---|---|"
    )
    with server() as (url, database):
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:
                r = killed(kind, Path(folder), url, database, documents)
            row = f"{r.kind} | {r.documents} | {r.distinct} | {r.requests} | {r.again} | {r.in_flight}"
            print(
                f"| {row} | {'once' if r.complete else 'MISSING'} | {r.seconds:.0f} |",
                *r.left,
                flush=True,
            )


def tell_ledger(documents: int) -> None:
    """Bytes of the ledger that a document takes with its indexes, three steps of one call each."""
    print("| ledger | documents | calls | bytes a document |\n|---|---|---|---|")
    for database in DATABASES:
        with tempfile.TemporaryDirectory() as name, Standin() as provider:
            folder = Path(name)
            url = migrated_url(database, folder)
            root = make_project(
                folder / "project", model("small", provider.url), rules=RULES
            )
            before = size(url)
            share(
                root, letters(folder / "a.jsonl", documents), folder / "out", url, "1/1"
            )
            print(
                f"| {database} | {documents} | {provider.count} | {(size(url) - before) / documents:.0f} |",
                flush=True,
            )


def size(url: str) -> int:
    """Bytes of a ledger's database."""
    from sqlalchemy import create_engine, text

    database = create_engine(url)
    try:
        with database.connect().execution_options(
            isolation_level="AUTOCOMMIT"
        ) as connection:
            if url.startswith("sqlite"):
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
                return Path(str(database.url.database)).stat().st_size
            connection.execute(text("CHECKPOINT"))
            return int(
                connection.execute(
                    text("SELECT pg_database_size(current_database())")
                ).scalar_one()
            )
    finally:
        database.dispose()


def letters(path: Path, number: int) -> Path:
    """A JSON Lines file of letters of about 110 tokens, no two the same."""
    path.write_text(
        "".join(
            json.dumps({"id": n, "text": LETTER.format(n=n)}) + "\n"
            for n in range(number)
        )
    )
    return path


def share(
    project: Path,
    source: Path,
    out: Path,
    ledger_url: str,
    shard: str,
    workers: int = 1,
) -> None:
    """One shard of the three steps of support_inbox, without Prefect, in a process of its own."""
    process = get_context("spawn").Process(
        target=in_process, args=(project, source, out, ledger_url, shard, workers)
    )
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"a shard ended with {process.exitcode}")


def in_process(
    project: Path, source: Path, out: Path, ledger_url: str, shard: str, workers: int
) -> None:
    """Where a shard is done."""
    from concurrent.futures import ThreadPoolExecutor

    from flows.support_inbox import TOPICS, needs_reply
    from tasks.classify import classify
    from tasks.draft import draft
    from tasks.summarize import summarize
    from tierwise import Batch, read_documents, recorded_run, write_documents
    from tierwise.orchestrate.process_state import engine

    def steps(batch: Batch) -> Batch:
        sorted_ = classify.fn(batch, labels=list(TOPICS), descriptions=TOPICS)
        return draft.fn(
            summarize.fn(sorted_, max_words=50),
            sender="us",
            max_words=70,
            only=needs_reply,
        )

    os.environ |= {"TIERWISE_LEDGER_URL": ledger_url, "TIERWISE_WORKERS": str(workers)}
    os.chdir(project)
    with recorded_run(), ThreadPoolExecutor(8) as pool:
        write_documents(
            pool.map(
                steps, read_documents(source, sensitivity="internal", shard=shard)
            ),
            out,
        )
    engine().close()


def tell_shards(counts: list[int], documents: int) -> None:
    print("| processes | documents | documents/s | calls/s |\n|---|---|---|---|")
    for count in counts:
        with tempfile.TemporaryDirectory() as name, Standin(latency_s=0.2) as provider:
            folder = Path(name)
            url = migrated_url("postgresql", folder)
            fast = model("small", provider.url) + "    concurrency: 64\n"
            root = make_project(folder / "project", fast, rules=RULES)
            source = letters(folder / "a.jsonl", documents)
            context = get_context("spawn")
            shards = [f"{k}/{count}" for k in range(1, count + 1)]
            all_ = [
                context.Process(
                    target=in_process,
                    args=(root, source, folder / s.replace("/", "-"), url, s, 1),
                )
                for s in shards
            ]
            for process in all_:
                process.start()
            while not provider.count:  # all have started when the first calls come
                time.sleep(0.01)
            begun = time.monotonic()
            for process in all_:
                process.join()
            seconds = time.monotonic() - begun
            print(
                f"| {count} | {documents} | {documents / seconds:.0f} | {provider.count / seconds:.0f} |",
                flush=True,
            )


def tell_prefect(task_runs: int) -> None:
    """What task runs cost a Prefect server of their own, tuned as `tierwise up` does. Linux only."""
    from tierwise.orchestrate.environment import prefect_home, prepare_prefect

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        prefect_home(root).mkdir(parents=True)
        url = unused_address()
        prepare_prefect(root)
        start = [
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--port",
            url.rpartition(":")[2],
        ]
        serving = subprocess.Popen(
            start,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.environ["PREFECT_API_URL"] = f"{url}/api"
        try:
            run = [sys.executable, "-c", FLOW_OF_NOTHING]
            subprocess.run([*run, "1"], check=True)  # waits for the server, too
            seconds = cpu(serving.pid)
            before = database_bytes(root)
            subprocess.run([*run, str(task_runs)], check=True)
            each = 1000 * (cpu(serving.pid) - seconds) / task_runs
            print(f"{task_runs} task runs: {each:.0f} ms of server CPU each", end=", ")
            print(
                f"{(database_bytes(root) - before) / task_runs:.0f} bytes of database"
            )
        finally:
            os.killpg(serving.pid, signal.SIGKILL)
            serving.wait()


FLOW_OF_NOTHING = """
import sys, time
from prefect import flow, get_run_logger, task
from prefect.task_runners import ThreadPoolTaskRunner
from tierwise.orchestrate.server import wait_for, healthy, wait_until_drained
def there():
    try:
        return healthy()
    except Exception:
        return False
assert wait_for(there, lambda: True, 120)
@task(persist_result=False)
def nothing(n): get_run_logger().info("classify: 50 accepted, 0 escalated, 0 deferred")
@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def nothings(number): nothing.map(range(number)).wait()
nothings(int(sys.argv[1]))
assert wait_until_drained(300)
"""


def cpu(session: int) -> float:
    """Seconds of CPU of all processes of a session."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session:
            found += int(fields[11]) + int(fields[12])
    return found / os.sysconf("SC_CLK_TCK")


def database_bytes(root: Path) -> int:
    """Bytes of all pages that Prefect's database uses."""
    import sqlite3

    with sqlite3.connect(root / ".tierwise" / "prefect.db") as database:
        pages, size_ = (
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "page_size")
        )
    return int(pages * size_)


def tell_reading() -> None:
    """A shard of rows reads past the rows of the others."""
    from tierwise.documents import Shard, iter_documents

    with tempfile.TemporaryDirectory() as name:
        source = letters(made(Path(name) / "in") / "a.jsonl", 20_000)
        for of in (1, 8, 100):
            begun = time.process_time()
            found = sum(
                1
                for _ in iter_documents(
                    source, sensitivity="internal", shard=Shard(1, of)
                )
            )
            seconds = time.process_time() - begun
            print(
                f"shard 1/{of}: {found} of 20000 rows, {1e6 * seconds / 20_000:.0f} us of CPU a row of the file"
            )


if __name__ == "__main__":
    main()
