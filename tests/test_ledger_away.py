"""A ledger whose database goes away: restarted, cut off, full or locked, and back again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from tests.kit.ledgers import REPLY, RUN, attempt, migrated_url, python, run
from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import Standin
from tests.kit.steps import CLASSIFY, GOOD, LABELS, TEXT
from tests.kit.wire import Cut, Wire
from tierwise.engine import Engine
from tierwise.errors import LedgerAway, LedgerError, RunStopped
from tierwise.ledger import Ledger, Paid
from tierwise.policy.budget import ReservationRequest
from tierwise.project import Project
from tierwise.records import Attempt, Batch, Document

ALONE = RULES.replace("[small, large]", "[small]")
PATIENCE_S = 60.0
COST = Decimal("0.25")


@pytest.fixture
def direct(tmp_path: Path) -> str:
    """A fresh ledger's address at the server itself."""
    return migrated_url("postgresql", tmp_path)


@pytest.fixture
def wire(direct: str) -> Iterator[Wire]:
    with Wire(direct) as opened:
        yield opened


@pytest.fixture
def ledger(wire: Wire, tmp_path: Path) -> Iterator[Ledger]:
    """A ledger over the wire, with patience and one run."""
    with Ledger.open(wire.url, root=tmp_path, patience_s=PATIENCE_S) as opened:
        opened.start_run(RUN)
        yield opened


def reserved(attempt_id: str, limit: int = 10) -> ReservationRequest:
    limits = {"month": Decimal(limit)}
    return ReservationRequest(id=attempt_id, usd=Decimal(1), limits=limits)


def rows(direct: str, query: str) -> list[tuple[object, ...]]:
    plain = make_url(direct).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(hide_password=False)) as connection:
        return connection.execute(query).fetchall()


def execute(direct: str, statement: str) -> None:
    plain = make_url(direct).set(drivername="postgresql")
    address = plain.render_as_string(hide_password=False)
    writable = "-c default_transaction_read_only=off"
    with psycopg.connect(address, autocommit=True, options=writable) as connection:
        connection.execute(statement)


# ---- the answer to a commit is lost


@pytest.mark.parametrize(
    "cuts", [("before",), ("after",), ("after", "before", "after")]
)
def test_each_write_is_made_once_when_the_answer_to_its_commit_is_lost(
    ledger: Ledger, wire: Wire, direct: str, cuts: tuple[Cut, ...]
) -> None:
    """A claim with its money, a top-up, a settlement, a release, the start and end of a run."""
    paid, given_up = attempt(call_hash="paid", cost=COST), attempt(call_hash="given up")

    async def story() -> None:
        wire.cut_commits(*cuts)
        assert await ledger.claim("paid", reservation=reserved(paid.id)) is None
        wire.cut_commits(*cuts)
        await ledger.top_up("month", Decimal(5), "more")
        wire.cut_commits(*cuts)
        await ledger.settle(RUN.id, paid, REPLY)
        await ledger.claim("given up", reservation=reserved(given_up.id))
        wire.cut_commits(*cuts)
        await ledger.release("given up")

    run(story())
    wire.cut_commits(*cuts)
    ledger.start_run(replace(RUN, id="run-2"))
    wire.cut_commits(*cuts)
    ledger.finish_run(RUN.id, "completed")

    assert wire.cuts_made >= 5 * len(cuts)
    (state,) = ledger.budgets.states(["month"])
    assert (state.spent, state.reserved, state.limit) == (COST, Decimal(0), Decimal(15))
    kinds = [change.kind for change in ledger.budgets.history("month")]
    assert kinds == ["reserved", "granted", "settled", "reserved", "settled"]
    assert [each.id for each in ledger.runs.attempts(RUN.id)] == [paid.id]
    assert {each.id for each in ledger.runs.newest()} == {RUN.id, "run-2"}
    (seal,) = ledger.seals.in_order()
    assert (seal.subject, seal.holds) == (RUN.id, True)
    assert rows(direct, "SELECT count(*) FROM reservations") == [(0,)]
    assert rows(direct, "SELECT call_hash FROM calls WHERE owner IS NOT NULL") == []


def test_commits_cut_at_random_lose_nothing_and_write_nothing_twice(
    ledger: Ledger, wire: Wire
) -> None:
    """Fifty calls at once, so that one commit has many of them; two of three commits are cut."""
    attempts = [attempt(call_hash=f"call {n}", cost=COST) for n in range(50)]

    async def pay(each: Attempt) -> None:
        reservation = reserved(each.id, limit=100)
        assert await ledger.claim(each.call_hash, reservation=reservation) is None
        await ledger.settle(RUN.id, each, REPLY)

    async def story() -> None:
        wire.cut_commits(*("after", "before", "after", "after", "before") * 2)
        await asyncio.gather(*[pay(each) for each in attempts])

    run(story(), seconds=60)
    (state,) = ledger.budgets.states(["month"])
    assert (state.spent, state.reserved) == (50 * COST, Decimal(0))
    recorded = [each.id for each in ledger.runs.attempts(RUN.id)]
    assert sorted(recorded) == sorted(each.id for each in attempts)
    assert len(list(ledger.budgets.history("month"))) == 100


# ---- a run while the database is away


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin(latency_s=0.3) as standin:
        standin.answer(GOOD)
        yield standin


def documents(number: int) -> tuple[Document, ...]:
    return tuple(
        Document(id=str(n), text=f"{TEXT} Number {n}.", sensitivity="internal")
        for n in range(number)
    )


@contextmanager
def engine_at(
    root: Path, url: str, provider: Standin, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    monkeypatch.setenv("TIERWISE_LEDGER_URL", url)
    monkeypatch.setenv("TIERWISE_PATIENCE", f"{PATIENCE_S:.0f} s")
    # two at once, so that most of a batch waits
    small = model("small", provider.url) + "    concurrency: 2\n"
    if not (root / "routing_rules").exists():
        make_project(root, small, rules=ALONE)
    with Engine(Project(root), {}) as engine:
        yield engine


def until(condition: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def paid_calls(direct: str) -> int:
    ((number,),) = rows(direct, "SELECT count(*) FROM attempts WHERE NOT reused")
    return int(str(number))


@pytest.mark.parametrize("fault", ["cut", "terminated", "full", "replica"])
def test_a_run_waits_for_its_database_and_pays_nothing_twice(
    fault: str,
    wire: Wire,
    direct: str,
    provider: Standin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cut off, restarted by an administrator, without a free connection, read-only for a while."""
    database = make_url(direct).database
    url = wire.url
    if fault == "full":
        execute(direct, f"CREATE ROLE {database} LOGIN CONNECTION LIMIT 20")
        execute(direct, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {database}")
        execute(direct, f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {database}")
        named = make_url(wire.url).set(username=database)
        url = named.render_as_string(hide_password=False)
    terminate = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    )

    def begin() -> None:
        if fault == "cut":
            wire.cut()
        if fault == "full":
            execute(direct, f"ALTER ROLE {database} CONNECTION LIMIT 0")
        if fault == "replica":
            execute(
                direct,
                f"ALTER DATABASE {database} SET default_transaction_read_only = on",
            )
        if fault != "cut":
            execute(direct, terminate)

    def end() -> None:
        if fault == "cut":
            wire.mend()
        if fault == "full":
            execute(direct, f"ALTER ROLE {database} CONNECTION LIMIT 20")
        if fault == "replica":
            # Connections that were made meanwhile stay open, and read-only.
            execute(
                direct, f"ALTER DATABASE {database} RESET default_transaction_read_only"
            )

    caplog.set_level(logging.WARNING, "tierwise")
    with engine_at(tmp_path, url, provider, monkeypatch) as engine:
        context = engine.start_run("test")
        done: list[Batch] = []
        thread = threading.Thread(
            target=lambda: done.append(
                engine.run_batch(context, CLASSIFY, Batch(documents(30)), LABELS)
            )
        )
        thread.start()
        until(lambda: provider.count >= 4)
        begin()
        if fault != "terminated":
            until(
                lambda: any(
                    "waiting for the ledger" in each for each in caplog.messages
                )
            )
            asked = provider.count
            time.sleep(1)
            assert provider.count == asked, "a call was begun while the ledger was away"
        end()
        thread.join(60)
        engine.finish_run(context, "completed")
        outcomes = [each.outcomes["classify"] for each in done[0].load()]
    assert {outcome.status for outcome in outcomes} == {"accepted"}
    assert provider.count == paid_calls(direct) == 30
    if fault != "terminated":
        assert sum("answers again" in each for each in caplog.messages) >= 1


def test_a_claim_stays_with_its_live_holder_through_an_outage_longer_than_its_lease(
    wire: Wire, direct: str, tmp_path: Path
) -> None:
    """The other process is back first; the holder could not renew its lease meanwhile."""
    paid = attempt(call_hash="call")

    async def story(holder: Ledger, other: Ledger, others_wire: Wire) -> Paid | None:
        await holder.claim("call", lease_s=0.4)
        others_wire.cut()
        wire.cut()
        waiting = asyncio.create_task(other.claim("call"))
        await asyncio.sleep(1)
        others_wire.mend()
        await asyncio.sleep(4)
        assert not waiting.done()
        wire.mend()
        await holder.settle(RUN.id, paid, REPLY)
        return await waiting

    with (
        Wire(direct) as others_wire,
        Ledger.open(wire.url, root=tmp_path, patience_s=PATIENCE_S) as holder,
        Ledger.open(others_wire.url, root=tmp_path, patience_s=PATIENCE_S) as other,
    ):
        holder.start_run(RUN)
        assert run(story(holder, other, others_wire)) == Paid(REPLY, paid.id, None)


def test_a_run_stopped_while_its_database_is_away_leaves_what_it_paid_to_the_next(
    wire: Wire,
    direct: str,
    provider: Standin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch = Batch(documents(6))
    with engine_at(tmp_path, wire.url, provider, monkeypatch) as engine:
        context = engine.start_run("test")

        def work() -> None:
            with pytest.raises((RunStopped, LedgerAway)):
                engine.run_batch(context, CLASSIFY, batch, LABELS)

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: provider.count == 2)
        wire.cut()
        until(lambda: list((tmp_path / ".tierwise/unwritten").glob("*")))
        engine.stop_run(context)
        thread.join(30)
        engine.finish_run(context, "cancelled")
    asked = provider.count
    (left,) = (tmp_path / ".tierwise/unwritten").iterdir()
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    assert str(left) in caplog.text
    assert paid_calls(direct) < asked

    wire.mend()
    with engine_at(tmp_path, wire.url, provider, monkeypatch) as engine:
        again = engine.start_run("test")
        done = engine.run_batch(again, CLASSIFY, batch, LABELS)
        engine.finish_run(again, "completed")
        states = {each.id: each.state for each in engine.ledger.runs.newest()}
        seals = {(seal.kind, seal.subject) for seal in engine.ledger.seals.in_order()}
    assert {each.outcomes["classify"].status for each in done.load()} == {"accepted"}
    assert provider.count == 6, "an answer was paid twice"
    assert paid_calls(direct) == 6
    assert states == {context.id: "cancelled", again.id: "completed"}
    assert seals == {("run", context.id), ("run", again.id)}
    assert not left.exists()


def test_a_process_killed_while_its_database_is_away_loses_no_paid_answer(
    wire: Wire, direct: str, tmp_path: Path
) -> None:
    code = """
        import asyncio, pathlib, sys
        from tests.kit.ledgers import REPLY, RUN, attempt
        from tierwise.ledger import Ledger
        ledger = Ledger.open(sys.argv[1], root=pathlib.Path(sys.argv[2]), patience_s=60)
        ledger.start_run(RUN)
        async def story():
            await ledger.claim("call")
            print("claimed", flush=True)
            sys.stdin.readline()
            await ledger.settle(RUN.id, attempt(call_hash="call"), REPLY)
        asyncio.run(story())
    """
    process = python(code, wire.url, str(tmp_path))
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == "claimed\n"
    wire.cut()
    process.stdin.write("\n")
    process.stdin.flush()
    until(lambda: list((tmp_path / ".tierwise/unwritten").glob("*")))
    process.kill()
    process.communicate()
    with Ledger.open(direct, root=tmp_path) as ledger:
        ledger.start_run(replace(RUN, id="run-2"))
        paid = run(ledger.claim("call"))
        assert paid is not None
        assert paid.reply == REPLY


def test_records_that_another_process_wrote_already_are_not_written_twice(
    wire: Wire, direct: str, tmp_path: Path
) -> None:
    """Its commit succeeded, but it was killed before it heard of that."""
    first = attempt(call_hash="call", cost=COST)
    with Ledger.open(direct, root=tmp_path) as ledger:
        ledger.start_run(RUN)
        run(ledger.claim("call", reservation=reserved(first.id)))
        run(ledger.settle(RUN.id, first, REPLY))
    folder = tmp_path / ".tierwise" / "unwritten"
    with Ledger.open(wire.url, root=tmp_path, patience_s=1) as ledger:
        wire.cut()
        with pytest.raises(LedgerAway, match="1 call and all else"):
            run(ledger.settle(RUN.id, first, REPLY))
    (left,) = folder.iterdir()
    broken = folder / "broken.jsonl"
    broken.write_text(f'{json.dumps({"owner": "gone"})}\n{{"rows": {{"att')
    long_ago = time.time() - 7200
    os.utime(broken, (long_ago, long_ago))
    with Ledger.open(direct, root=tmp_path) as ledger:
        ledger.start_run(replace(RUN, id="run-2"))
        assert len(list(ledger.runs.attempts(RUN.id))) == 1
        assert ledger.budgets.states(["month"])[0].spent == COST
    assert not left.exists()


# ---- SQLite: locked, full, read-only, damaged


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Write to the last free byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


def test_a_full_disk_is_waited_for_until_it_is_freed(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tierwise")
    paid = [attempt(call_hash=f"call {n}", cost=COST) for n in range(40)]
    reply = replace(REPLY, text=REPLY.text + " " * 4000)

    async def story(ledger: Ledger) -> None:
        for each in paid:
            await ledger.claim(each.call_hash, reservation=reserved(each.id, limit=100))
        filler = fill(small_disk)
        settled = [asyncio.create_task(ledger.settle(RUN.id, a, reply)) for a in paid]
        while "waiting for the ledger" not in caplog.text:
            await asyncio.sleep(0.05)
        claim = asyncio.create_task(ledger.claim("later"))
        await asyncio.sleep(0.5)
        assert not claim.done()
        filler.unlink()
        await asyncio.gather(*settled)
        assert await claim is None

    with Ledger.open(root=small_disk, patience_s=PATIENCE_S) as ledger:
        ledger.start_run(RUN)
        run(story(ledger))
        ledger.finish_run(RUN.id, "completed")
        (state,) = ledger.budgets.states(["month"])
        assert (state.spent, state.reserved) == (40 * COST, Decimal(0))
        assert len(list(ledger.runs.attempts(RUN.id))) == 40
    assert "the disk is full; free some space" in caplog.text
    assert "answers again" in caplog.text


def test_a_disk_that_stays_full_is_an_error_after_the_patience(
    small_disk: Path,
) -> None:
    with Ledger.open(root=small_disk, patience_s=1.5) as ledger:
        ledger.start_run(RUN)
        filler = fill(small_disk)
        reply = replace(REPLY, text=REPLY.text + " " * 100_000)
        with pytest.raises(LedgerAway, match=r"disk is full; .* waited for"):
            run(ledger.settle(RUN.id, attempt(call_hash="call"), reply))
        filler.unlink()


def test_a_long_lock_is_waited_for(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)

    async def story(ledger: Ledger) -> None:
        holder.execute("BEGIN IMMEDIATE")
        claim = asyncio.create_task(ledger.claim("call"))
        await asyncio.sleep(1)
        assert not claim.done()
        holder.execute("ROLLBACK")
        assert await claim is None

    url = "sqlite:///ledger.db?timeout=0.1"
    with Ledger.open(url, root=tmp_path, patience_s=PATIENCE_S) as ledger:
        run(story(ledger))
    holder.close()


def test_what_cannot_pass_is_an_error_at_once(small_disk: Path) -> None:
    """A disk that becomes read-only, and a file that is overwritten by another program."""
    with Ledger.open(root=small_disk, patience_s=3600) as ledger:
        ledger.start_run(RUN)
        remount = ["mount", "-o", "remount,ro", str(small_disk)]
        ledger.start_run(replace(RUN, id="run-2"))
        if subprocess.run(remount, check=False).returncode == 0:
            with pytest.raises(LedgerError, match="cannot be written"):
                ledger.start_run(replace(RUN, id="run-3"))
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    path = small_disk / ".tierwise" / "ledger.db"
    path.write_bytes(b"no database any more " * 1000)
    with pytest.raises(LedgerError, match="this file is something else"):
        Ledger.open(root=small_disk, patience_s=3600)
