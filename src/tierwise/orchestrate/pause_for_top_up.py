"""Asking a person for money in Prefect: the flow run pauses until somebody resumes it, in the UI or by command."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from tierwise.errors import BudgetExceeded

WAITS = timedelta(days=1)  # then the answer is no
_LOOKS_EVERY_S = 2

log = logging.getLogger(__name__)


class MoreMoney(RunInput):
    """What a person answers; nothing means no."""

    add_usd: float = 0.0


def ask_by_pausing() -> Callable[[BudgetExceeded], Decimal | None]:
    """A question that pauses the flow run in which this is called; it may be asked from any thread, one at a time."""
    context = contextvars.copy_context()

    def ask(error: BudgetExceeded) -> Decimal | None:
        text = f"The run waits for money: {error}. How many USD may be added? With 0, what is left waits as deferred."
        wanted = MoreMoney.with_initial_data(description=text)
        try:
            answer = context.run(
                pause_flow_run,
                wanted,
                timeout=int(WAITS.total_seconds()),
                poll_interval=_LOOKS_EVERY_S,
            )
        except (FlowPauseTimeout, RuntimeError) as refused:  # nobody came, or this run cannot pause
            log.warning("no money was granted: %s", refused)
            return None
        return Decimal(str(answer.add_usd)) if answer.add_usd > 0 else None

    return ask
