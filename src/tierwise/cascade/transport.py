"""The transport of one call: what the rules, the run and its deadline say about it."""

from __future__ import annotations

import math
import time

from tierwise.cascade.job import Job, Work
from tierwise.policy.catalog import Model
from tierwise.policy.transport import (
    TransportChoice,
    TransportSetting,
    Turnaround,
    rescue_at,
    transport_for,
)
from tierwise.records import Route


def transport_setting(job: Job, chosen: Route) -> TransportSetting:
    """Return what a person says about a document's transport: in the command, else in its route.

    Models that are measured have no route.
    """
    run = job.run
    if run.transport is not None:
        return run.transport
    rule = None if job.models else run.policy.rules.route_named(chosen.rule)
    if rule is None or rule.transport is None:
        return "auto"
    return rule.transport


def choose_transport(
    work: Work, model: Model, turnaround: Turnaround | None
) -> TransportChoice:
    """Return the transport of a document's next call to a model, as of now.

    `turnaround` is that of the model's batches so far. It is asked again for each call, so that
    a repair or an escalation goes online once the time is too short for another batch.
    """
    run = work.run
    batch = model.batch
    forbidden = None
    if batch is not None:
        rules = run.policy.rules
        forbidden = rules.batch_forbidden(work.features, batch.stores_days)
    choice = transport_for(
        work.transport,
        batch,
        time_left_s=_time_left_s(work),
        steps_left=run.steps.left_from(work.step.name),
        turnaround=turnaround,
        forbidden=forbidden,
    )
    # Where nothing was to choose, the record says nothing about it.
    if batch is not None or work.transport != "auto":
        work.transports.setdefault(model.name, choice)
    return choice


def _time_left_s(work: Work) -> float | None:
    run = work.run
    if run.deadline is not None:
        return run.deadline - time.time()
    return math.inf if run.detached else None


def rescue_time(work: Work, online_s: float = 0.0) -> float | None:
    """Return when a missing batch answer has to be asked for online (epoch seconds), or None.

    `online_s` is how long this step takes online for all that is missing.
    """
    deadline = work.run.deadline
    if deadline is None:
        return None
    return rescue_at(deadline, work.run.steps.left_from(work.step.name), online_s)
