"""Provider batches on record: intents, ends of items, money, and what any process may take over."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from tests.kit.ledgers import REPLY, RUN, attempt, python, run
from tierwise.errors import CallInBatch
from tierwise.ledger import Ledger, Paid, RunInfo
from tierwise.ledger.batches import BatchStatus, NewBatch
from tierwise.policy.budget import ReservationRequest
from tierwise.records import Attempt

BATCH = NewBatch(id="batch-1", run_id=RUN.id, model="small", created_at=1_790_000_000.0)
LIMIT = Decimal(10)


def calls(number: int) -> list[Attempt]:
    """Attempts of different calls."""
    return [
        attempt(
            call_hash=f"{index:064x}", document_id=f"{index}.txt", transport="batch"
        )
        for index in range(number)
    ]


async def claim(ledger: Ledger, each: Attempt, usd: str = "1") -> Paid | None:
    """Claim a call for a batch, with some money."""
    money = ReservationRequest(
        id=each.id, usd=Decimal(usd), limits={"run run-1": LIMIT}
    )
    return await ledger.claim(
        each.call_hash,
        run_id=RUN.id,
        attempt=each,
        reservation=money,
        for_batch=True,
    )


async def sent(ledger: Ledger, number: int = 3) -> list[Attempt]:
    """Record a batch of some calls that was uploaded."""
    made = calls(number)
    for each in made:
        assert await claim(ledger, each) is None
    granted = await ledger.batches.intend(BATCH, made)
    assert granted == {each.call_hash for each in made}
    await ledger.batches.submitted(BATCH.id, "batch_abc")
    return made


def test_an_intent_hands_the_calls_and_their_money_to_the_batch(
    ledger: Ledger, other: Ledger
) -> None:
    async def story() -> None:
        made = await sent(ledger)
        (row,) = other.batches.open_batches()
        assert (row.id, row.provider_id, row.items, row.open) == (
            BATCH.id,
            "batch_abc",
            3,
            3,
        )
        with pytest.raises(CallInBatch) as held:
            await claim(other, replace(made[0], id="another"))
        assert held.value.batch == BATCH.id
        (state,) = other.budgets.states()
        assert (state.spent, state.reserved) == (0, 3)
        items = other.batches.items(BATCH.id)
        assert {item.attempt.id for item in items} == {each.id for each in made}

    run(story())
    # Closed: the process has gone, and the batch with its money has not.
    ledger.close()
    (state,) = other.budgets.states()
    assert (state.spent, state.reserved) == (0, 3)
    assert other.runs.resolve(RUN.id).cost_unknown == 0


def test_items_settle_one_by_one_in_any_process_and_only_once(
    ledger: Ledger, other: Ledger
) -> None:
    async def story() -> None:
        made = await sent(ledger)
        items = {item.call_hash: item for item in other.batches.items(BATCH.id)}
        first = items[made[0].call_hash]
        paid = replace(first.attempt, cost=Decimal("0.25"), usage=REPLY.usage)
        for collector in (other, ledger, other):
            await collector.batches.settle(first, RUN.id, paid, REPLY)
        (state,) = ledger.budgets.states()
        assert (state.spent, state.reserved) == (Decimal("0.25"), 2)
        reply = await ledger.claim(made[0].call_hash)
        assert isinstance(reply, Paid)
        assert reply.paid_for == (RUN.id, "0.txt", "classify")
        failed = replace(
            items[made[1].call_hash].attempt,
            cost=Decimal(0),
            error="BatchExpired",
        )
        await ledger.batches.settle(
            items[made[1].call_hash], RUN.id, failed, None, note="not billed"
        )
        assert await claim(other, replace(made[1], id="again")) is None
        await ledger.batches.lose(items[made[2].call_hash])
        assert ledger.batches.close_if_done(BATCH.id)
        assert not ledger.batches.open_batches()
        (state,) = ledger.budgets.states()
        assert (state.spent, state.reserved) == (Decimal("1.25"), 1)
        row = ledger.runs.resolve(RUN.id)
        assert (row.attempts, row.cost_known, row.cost_unknown) == (
            3,
            Decimal("0.25"),
            1,
        )

    run(story())


def test_a_rescued_call_is_free_and_its_late_answer_is_cost_alone(
    ledger: Ledger,
) -> None:
    async def story() -> None:
        (made,) = await sent(ledger, 1)
        (item,) = ledger.batches.items(BATCH.id)
        await ledger.batches.rescue([item])
        online = replace(made, id="online", cost=Decimal("0.5"), transport="online")
        assert await ledger.claim(made.call_hash, run_id=RUN.id, attempt=online) is None
        await ledger.settle(RUN.id, online, REPLY)
        (late,) = ledger.batches.items(BATCH.id)
        assert late.state == "rescued"
        paid = replace(late.attempt, cost=Decimal("0.25"))
        await ledger.batches.settle(late, RUN.id, paid, replace(REPLY, text="late"))
        kept = await ledger.claim(made.call_hash)
        assert isinstance(kept, Paid)
        assert kept.reply == REPLY
        (state,) = ledger.budgets.states()
        assert (state.spent, state.reserved) == (Decimal("0.25"), 0)
        assert ledger.runs.resolve(RUN.id).cost == Decimal("0.75")
        assert ledger.batches.close_if_done(BATCH.id)

    run(story())


def test_the_money_of_an_open_batch_is_never_taken_for_lost(
    ledger: Ledger, other: Ledger
) -> None:
    """Another call lacks the money: reservations of the dead are swept then."""

    async def story() -> None:
        await sent(ledger)
        ledger.close()
        more = attempt(call_hash="d" * 64)
        waiting = asyncio.create_task(claim(other, more, "8"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        (state,) = other.budgets.states()
        assert (state.spent, state.reserved) == (0, 3)
        for item in other.batches.items(BATCH.id):
            await other.batches.release(item, "not sent")
        assert await waiting is None

    run(story())


def test_a_call_that_was_gathered_and_not_sent_costs_nothing_after_a_kill(
    ledger: Ledger, url: str, tmp_path: Path
) -> None:
    code = """
        import asyncio, pathlib, sys
        from tests.test_batches_ledger import calls, claim
        from tierwise.ledger import Ledger
        ledger = Ledger.open(sys.argv[1], root=pathlib.Path(sys.argv[2]))
        (made,) = calls(1)
        asyncio.run(claim(ledger, made, "9"))
        print("claimed", flush=True)
        sys.stdin.readline()
    """
    process = python(code, url, str(tmp_path))
    assert process.stdout
    assert process.stdout.readline() == "claimed\n"
    process.kill()
    process.communicate()
    (made,) = calls(1)
    assert run(claim(ledger, made, "9")) is None
    (state,) = ledger.budgets.states()
    assert (state.spent, state.reserved) == (0, 9)
    assert ledger.runs.resolve(RUN.id).cost_unknown == 0


def test_an_upload_is_taken_over_once_its_process_is_dead(
    ledger: Ledger, other: Ledger
) -> None:
    async def intend() -> None:
        made = calls(1)
        await claim(ledger, made[0])
        await ledger.batches.intend(BATCH, made)

    run(intend())
    (row,) = other.batches.open_batches()
    assert not row.is_abandoned(time.time())
    elsewhere = replace(row, owner="mail-2/boot/4026 17 abc 99")
    assert elsewhere.is_abandoned(time.time())
    assert not elsewhere.is_abandoned(row.created_at + 60)
    assert other.batches.adopt(row)
    assert not ledger.batches.adopt(row)  # its owner is another one by now


def test_a_batchs_state_and_turnaround_are_on_record(ledger: Ledger) -> None:
    async def story() -> None:
        await sent(ledger, 1)
        (row,) = ledger.batches.open_batches()
        assert row.submitted_at
        ended = row.submitted_at + 420
        status = BatchStatus(state="ended", succeeded=1, ended_at=ended)
        await ledger.batches.noted(BATCH.id, status)
        (row,) = ledger.batches.of_run(RUN.id)
        assert (row.state, row.succeeded, row.failed) == ("ended", 1, 0)
        assert ledger.batches.seconds_taken("small") == [420]
        assert ledger.batches.seconds_taken("large") == []

    run(story())


def test_a_run_that_has_ended_gets_no_more_attempts(
    ledger: Ledger, other: Ledger
) -> None:
    other.start_run(RunInfo(**{**_fields(RUN), "id": "run-2"}))
    assert ledger.batches.run_to_record_in(RUN.id, "run-2") == RUN.id
    ledger.finish_run(RUN.id, "cancelled")
    assert ledger.batches.run_to_record_in(RUN.id, "run-2") == "run-2"
    assert ledger.batches.run_to_record_in(RUN.id, RUN.id) == RUN.id


def test_retention_removes_collected_batches_with_their_run(ledger: Ledger) -> None:
    async def story() -> None:
        await sent(ledger, 2)
        for item in ledger.batches.items(BATCH.id):
            paid = replace(item.attempt, cost=Decimal(0))
            await ledger.batches.settle(item, RUN.id, paid, REPLY)

    run(story())
    assert ledger.batches.close_if_done(BATCH.id)
    ledger.finish_run(RUN.id, "completed")
    removed = ledger.row_removal.remove_older(time.time(), by="test")
    assert removed.runs == 1
    assert ledger.batches.of_run(RUN.id) == []


def _fields(info: RunInfo) -> dict[str, object]:
    return {name: getattr(info, name) for name in RunInfo.__dataclass_fields__}
