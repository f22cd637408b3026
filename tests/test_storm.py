"""Every fifth answer is a fault of some kind: no document is lost, and all that was sent is on record."""

from __future__ import annotations

from benchmarks.storm import weather


def test_in_a_storm_of_faults_every_document_is_accepted_or_deferred_with_a_reason() -> (
    None
):
    storm = weather(200, concurrency=64, timeout_s=2, models="first, second, third")
    assert len(storm.outcomes) == storm.recorded == 200
    assert storm.unexplained == 0
    assert storm.accepted > 150, "most faults pass, or concern one model"
    assert {a.model for a in storm.attempts} >= {"first", "second"}
    assert len({a.error for a in storm.attempts}) > 7


def test_in_a_storm_every_request_is_an_attempt_and_no_money_stays_reserved() -> None:
    storm = weather(100, concurrency=32, timeout_s=2, models="first, second, third")
    assert len(storm.attempts) == storm.requests > 100
    assert storm.reserved == 0
    assert storm.spent >= sum(attempt.cost or 0 for attempt in storm.attempts) > 0


def test_without_faults_each_document_takes_one_call() -> None:
    calm = weather(50, share=0)
    assert (calm.accepted, len(calm.attempts), calm.requests) == (50, 50, 50)
