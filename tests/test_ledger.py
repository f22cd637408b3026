"""The ledger keeps what was committed, and lets every call be paid once."""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import time
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.kit.ledgers import DOCUMENT, REPLY, RUN, attempt, python, run
from tierwise.errors import LedgerError
from tierwise.ledger import Ledger, Paid
from tierwise.records import Outcome, Rejection, Route, Usage, Verdict

ANY_TEXT = st.text(
    st.sampled_from("\0\ud800\udfff␛a0") | st.characters(exclude_categories=()),
    max_size=12,
)
few = settings(max_examples=40, deadline=None)


# ---- runs


def test_a_run_that_was_never_started_cannot_finish(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no run ghost"):
        ledger.finish_run("ghost", "completed")


def test_a_run_id_is_used_once(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.start_run(RUN)
    assert len(ledger.runs.newest()) == 1


def test_sync_methods_may_be_called_on_the_event_loop(ledger: Ledger) -> None:
    async def finish() -> None:
        ledger.finish_run(RUN.id, "failed")

    run(finish())
    assert ledger.runs.resolve(RUN.id).state == "failed"


# ---- paid once


def test_a_new_call_is_claimed_and_once_paid_its_reply_is_reused(
    ledger: Ledger,
) -> None:
    paid = attempt(cost=Decimal("0.000123"))

    async def story() -> tuple[Paid | None, Paid | None]:
        first = await ledger.claim(paid.call_hash)
        await ledger.settle(RUN.id, paid, REPLY)
        return first, await ledger.claim(paid.call_hash)

    assert run(story()) == (None, Paid(REPLY, paid.id, paid.cost))


def test_a_reply_is_reused_after_the_ledger_was_closed(
    url: str, ledger: Ledger, tmp_path: Path
) -> None:
    paid = attempt()
    run(ledger.settle(RUN.id, paid, REPLY))
    ledger.close()
    with Ledger.open(url, root=tmp_path) as again:
        assert run(again.claim(paid.call_hash)) == Paid(REPLY, paid.id, None)


def test_of_many_identical_calls_at_once_one_is_paid_and_the_others_reuse_it(
    ledger: Ledger,
) -> None:
    async def one(number: int) -> Paid | None:
        answer = await ledger.claim("same")
        if answer is None:
            await ledger.settle(
                RUN.id, attempt(id=f"payer-{number}", call_hash="same"), REPLY
            )
        return answer

    async def story() -> list[Paid | None]:
        return await asyncio.gather(*(one(number) for number in range(40)))

    answers = run(story())
    payers = [number for number, answer in enumerate(answers) if answer is None]
    assert len(payers) == 1
    assert {answer.attempt_id for answer in answers if answer} == {f"payer-{payers[0]}"}


def test_when_the_payer_fails_exactly_one_of_those_waiting_takes_over(
    ledger: Ledger,
) -> None:
    made = []

    async def one() -> None:
        if await ledger.claim("same") is None:
            made.append(
                attempt(call_hash="same", error=None if made else "ServerFault")
            )
            await ledger.settle(RUN.id, made[-1], REPLY if len(made) > 1 else None)
            if len(made) == 1:
                await one()

    async def story() -> None:
        await asyncio.gather(*(one() for _ in range(20)))

    run(story())
    assert [a.error for a in made] == ["ServerFault", None]


def test_another_process_waits_until_the_call_is_paid(
    ledger: Ledger, other: Ledger
) -> None:
    paid = attempt()

    async def story() -> Paid | None:
        assert await ledger.claim(paid.call_hash) is None
        waiting = asyncio.create_task(other.claim(paid.call_hash))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await ledger.settle(RUN.id, paid, REPLY)
        return await waiting

    assert run(story()) == Paid(REPLY, paid.id, None)


def test_another_process_gets_a_released_claim(ledger: Ledger, other: Ledger) -> None:
    async def story() -> Paid | None:
        await ledger.claim("call")
        waiting = asyncio.create_task(other.claim("call"))
        await ledger.release("call")
        return await waiting

    assert run(story()) is None


def test_an_expired_lease_frees_the_claim(ledger: Ledger, other: Ledger) -> None:
    async def story() -> Paid | None:
        await ledger.claim("call", lease_s=0.1)
        return await other.claim("call")

    assert run(story()) is None


def test_who_lost_the_claim_to_another_does_not_free_it_by_failing(
    ledger: Ledger, other: Ledger
) -> None:
    late, paid = (
        attempt(call_hash="call", error="CallTimeout"),
        attempt(call_hash="call"),
    )

    async def story() -> Paid | None:
        await ledger.claim("call", lease_s=0.05)
        await other.claim("call")
        await ledger.settle(RUN.id, late, None)
        waiting = asyncio.create_task(ledger.claim("call"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await other.settle(RUN.id, paid, REPLY)
        return await waiting

    assert run(story()) == Paid(REPLY, paid.id, None)


def test_the_claim_of_a_killed_process_is_free_at_once(
    url: str, ledger: Ledger, tmp_path: Path
) -> None:
    code = """
        import asyncio, pathlib, sys, time
        from tierwise.ledger import Ledger
        ledger = Ledger.open(sys.argv[1], root=pathlib.Path(sys.argv[2]))
        asyncio.run(ledger.claim("call"))
        print("claimed", flush=True)
        time.sleep(60)
    """
    process = python(code, url, str(tmp_path))
    assert process.stdout
    assert process.stdout.readline() == "claimed\n"
    process.kill()
    process.communicate()
    assert run(ledger.claim("call"), seconds=20) is None


def test_closing_gives_up_the_claims(ledger: Ledger, other: Ledger) -> None:
    run(ledger.claim("call"))
    ledger.close()
    assert run(other.claim("call"), seconds=10) is None


def test_a_cancelled_claim_is_given_up(ledger: Ledger) -> None:
    """The cancelled task may have been granted the claim before it heard of its end."""

    async def story() -> Paid | None:
        task = asyncio.create_task(ledger.claim("call"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return await ledger.claim("call")

    assert run(story(), seconds=10) is None


def test_a_fresh_run_pays_again_but_its_duplicates_only_once(ledger: Ledger) -> None:
    old, new = attempt(call_hash="call"), attempt(call_hash="call")
    newer = replace(REPLY, text="newer")

    async def story() -> list[Paid | None]:
        await ledger.settle(RUN.id, old, REPLY)
        start = math.nextafter(time.time(), math.inf)
        answers = [
            await ledger.claim("call", fresh_since=start),
            await ledger.claim("call"),  # who takes any reply need not wait
        ]
        await ledger.settle(RUN.id, new, newer)
        return [
            *answers,
            await ledger.claim("call", fresh_since=start),
            await ledger.claim("call"),
        ]

    reused = Paid(newer, new.id, None)
    assert run(story()) == [None, Paid(REPLY, old.id, None), reused, reused]


def test_a_fresh_call_that_fails_leaves_the_older_reply(ledger: Ledger) -> None:
    old = attempt(call_hash="call")

    async def story() -> Paid | None:
        await ledger.settle(RUN.id, old, REPLY)
        await ledger.claim("call", fresh_since=4e9)
        await ledger.settle(RUN.id, attempt(call_hash="call", error="Overloaded"), None)
        return await ledger.claim("call")

    assert run(story()) == Paid(REPLY, old.id, None)


def test_recording_a_reuse_leaves_the_claim_on_the_call_alone(
    ledger: Ledger, other: Ledger
) -> None:
    async def story() -> Paid | None:
        await ledger.claim("call")
        await ledger.settle(RUN.id, attempt(call_hash="call", reused=True), None)
        waiting = asyncio.create_task(other.claim("call"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await ledger.release("call")
        return await waiting

    assert run(story()) is None


# ---- what is recorded


def test_an_attempt_comes_back_as_it_was_without_its_text(ledger: Ledger) -> None:
    verdicts = (
        Verdict("schema", True),
        Verdict("length", False, "41 words, at most 40", 0.5),
        Verdict("judge", None),
    )
    full = attempt(
        cost=Decimal("0.000000000001"),
        reused=True,
        error="BadReply",
        error_text="no JSON",
        text="?",
        verdicts=verdicts,
    )
    bare = attempt(
        usage=None,
        cost=None,
        price_date=None,
        finish_reason=None,
        step="draft",
        kind="repair",
    )

    async def story() -> None:
        await ledger.settle(RUN.id, full, None)
        await ledger.settle(RUN.id, bare, REPLY)

    run(story())
    assert list(ledger.runs.attempts(RUN.id)) == [replace(full, text=None), bare]
    assert ledger.runs.reply(bare.call_hash) == REPLY
    assert ledger.runs.reply("unheard of") is None


def test_how_an_attempt_was_sent_and_cached_is_on_record_and_sealed(
    ledger: Ledger,
) -> None:
    usage = replace(
        REPLY.usage or Usage(1, 1), cache_write_tokens=300, cache_write_1h_tokens=100
    )
    sent = attempt(transport="batch", service_tier="flex", usage=usage)
    run(ledger.settle(RUN.id, sent, None))
    (back,) = ledger.runs.attempts(RUN.id)
    assert back.transport == "batch"
    assert back.service_tier == "flex"
    assert back.usage == usage
    ledger.finish_run(RUN.id, "completed")
    assert ledger.seals.is_sound(RUN.id)
    (block,) = ledger.seals.blocks()
    *_, record = block.records
    assert record["transport"] == "batch"
    assert record["cache_write_1h_tokens"] == 100


def test_a_check_asked_again_replaces_its_verdict(ledger: Ledger) -> None:
    made = attempt()

    async def story() -> None:
        await ledger.settle(RUN.id, made, REPLY)
        await ledger.record_verdicts(
            RUN.id,
            made.id,
            [Verdict("schema", True), Verdict("judge", None, "no number")],
        )
        await ledger.record_verdicts(RUN.id, made.id, [])
        await ledger.record_verdicts(
            RUN.id, made.id, [Verdict("judge", False, "invented", 0.2)]
        )

    run(story())
    (read,) = ledger.runs.attempts(RUN.id)
    assert sorted(read.verdicts, key=lambda v: v.check) == [
        Verdict("judge", False, "invented", 0.2),
        Verdict("schema", True),
    ]


def test_an_outcome_comes_back_as_it_was_and_a_later_one_replaces_it(
    ledger: Ledger,
) -> None:
    route = Route(
        step="classify",
        rule="default",
        models=("small", "large"),
        rejected=(Rejection("cloud", "guard", "guard", detail="g"),),
    )
    waits = Outcome(
        step="classify",
        status="deferred",
        reason="no money left",
        sensitivity="internal",
        route=route,
    )
    value = {"label": "refund", "spans": [1, 2.5, None]}
    done = Outcome(
        step="classify",
        status="accepted",
        value=value,
        model="large",
        sensitivity="internal",
        route=replace(route, review="human"),
    )
    run(ledger.record_outcome(RUN.id, DOCUMENT, waits))
    assert [row.outcome for row in ledger.runs.outcomes(RUN.id)] == [waits]
    run(ledger.record_outcome(RUN.id, DOCUMENT, done))
    (row,) = ledger.runs.outcomes(RUN.id)
    assert (row.document_id, row.document_hash, row.outcome) == (
        DOCUMENT.id,
        DOCUMENT.hash,
        done,
    )


def test_any_text_is_kept_exactly(ledger: Ledger) -> None:
    """NUL and lone surrogates too, which file names and replies may hold and databases refuse."""

    @few
    @given(any_text=ANY_TEXT)
    def kept(any_text: str) -> None:
        made = attempt(
            call_hash=any_text + "!",
            document_id=any_text,
            error_text=any_text,
            verdicts=(Verdict("c", None, any_text),),
        )
        reply = replace(REPLY, text=any_text, served_model=any_text)
        document = replace(DOCUMENT, id=any_text)
        outcome = Outcome(
            step="draft",
            status="accepted",
            value=[any_text, {any_text: 1}],
            reason=any_text,
        )

        async def story() -> None:
            await ledger.settle(RUN.id, made, reply)
            await ledger.record_outcome(RUN.id, document, outcome)

        run(story())
        assert made in list(ledger.runs.attempts(RUN.id, document_id=any_text))
        assert ledger.runs.reply(made.call_hash) == reply
        assert [row.outcome for row in ledger.runs.outcomes(RUN.id, any_text)] == [
            outcome
        ]

    kept()


def test_costs_are_exact_one_by_one_and_summed(ledger: Ledger) -> None:
    """To 1e-12 USD; further places are rounded half even."""
    runs = itertools.count(2)

    @few
    @example(costs=[Decimal("5E-13"), Decimal("15E-13"), Decimal("25E-13")])
    @given(
        costs=st.lists(
            st.decimals(0, 100_000, places=12) | st.decimals(0, 10, places=30),
            min_size=1,
            max_size=5,
        )
    )
    def exact(costs: list[Decimal]) -> None:
        this = replace(RUN, id=f"run-{next(runs)}", budget_usd=max(costs))
        ledger.start_run(this)

        async def story() -> None:
            for cost in costs:
                await ledger.settle(this.id, attempt(cost=cost), None)

        run(story())
        kept = [
            c.quantize(
                Decimal("1e-12"), context=Context(prec=60, rounding=ROUND_HALF_EVEN)
            )
            for c in costs
        ]
        assert [a.cost for a in ledger.runs.attempts(this.id)] == kept
        row = ledger.runs.resolve(this.id)
        assert (row.cost, row.budget_usd) == (sum(kept), max(kept))

    exact()


@pytest.mark.parametrize(
    "cost", [Decimal("NaN"), Decimal("Infinity"), Decimal(10_000_000), Decimal("-1e30")]
)
def test_a_cost_that_is_no_amount_is_refused(ledger: Ledger, cost: Decimal) -> None:
    with pytest.raises(LedgerError, match="USD is not an amount"):
        run(ledger.settle(RUN.id, attempt(cost=cost), None))


def test_one_bad_record_among_many_fails_alone(ledger: Ledger) -> None:
    """They share a transaction, and only the one to blame gets the error."""
    good = [
        attempt(id=f"good-{number}", call_hash=f"call-{number}") for number in range(30)
    ]
    good[20:20] = [
        attempt(id="good-3"),
        attempt(id="lost"),
        attempt(id="too-dear", cost=Decimal(10**9)),
    ]

    async def story() -> list[BaseException | None]:
        runs = ["no-such-run" if a.id == "lost" else RUN.id for a in good]
        settling = [
            ledger.settle(name, a, REPLY) for name, a in zip(runs, good, strict=True)
        ]
        return await asyncio.gather(*settling, return_exceptions=True)

    results = run(story())
    assert [
        n for n, result in enumerate(results) if isinstance(result, LedgerError)
    ] == [
        20,
        21,
        22,
    ]
    assert {a.id for a in ledger.runs.attempts(RUN.id)} == {
        f"good-{number}" for number in range(30)
    }


def test_an_attempt_and_its_reply_are_written_together_or_not_at_all(
    ledger: Ledger,
) -> None:
    async def story() -> Paid | None:
        with pytest.raises(LedgerError):
            await ledger.settle("no-such-run", attempt(call_hash="call"), REPLY)
        await ledger.settle(RUN.id, attempt(call_hash="elsewhere"), REPLY)
        return await ledger.claim("call")

    assert run(story()) is None


def test_closing_writes_what_still_waits(
    url: str, ledger: Ledger, tmp_path: Path
) -> None:
    async def leave_in_a_hurry() -> None:
        tasks = [
            asyncio.create_task(ledger.settle(RUN.id, attempt(), None))
            for _ in range(50)
        ]
        await asyncio.sleep(0)
        ledger.close()
        await asyncio.gather(*tasks)

    run(leave_in_a_hurry())
    with Ledger.open(url, root=tmp_path) as again:
        assert again.runs.resolve(RUN.id).attempts == 50


def test_what_was_committed_survives_the_death_of_the_process(
    url: str, ledger: Ledger, tmp_path: Path
) -> None:
    """Every attempt whose settling returned before `kill -9` is in the ledger."""
    code = """
        import asyncio, pathlib, sys
        from tests.kit.ledgers import REPLY, RUN, attempt
        from tierwise.ledger import Ledger

        async def settle_for_ever(ledger, lane):
            while True:
                made = attempt()
                await ledger.settle(RUN.id, made, REPLY)
                print(made.id, flush=True)

        async def main():
            ledger = Ledger.open(sys.argv[1], root=pathlib.Path(sys.argv[2]))
            await asyncio.gather(*(settle_for_ever(ledger, lane) for lane in range(8)))

        asyncio.run(main())
    """
    process = python(code, url, str(tmp_path))
    assert process.stdout
    printed = [process.stdout.readline() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    printed += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    assert {line.strip() for line in printed} <= {
        a.id for a in ledger.runs.attempts(RUN.id)
    }
    assert process.returncode == -signal.SIGKILL
