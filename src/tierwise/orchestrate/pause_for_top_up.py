"""A top-up in Prefect: the flow run pauses until it is resumed with an amount, in the UI or CLI."""

from __future__ import annotations

import contextvars
import logging
from datetime import timedelta
from decimal import Decimal

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from tierwise.cascade.empty_budget import AskForTopUp
from tierwise.errors import BudgetExceeded

LONGEST_PAUSE = timedelta(days=1)  # then the answer is no
_POLL_S = 2

log = logging.getLogger(__name__)


class MoreMoney(RunInput):
    """The form that a person fills in to resume the run; 0 means no."""

    add_usd: float = 0.0


def ask_by_pausing() -> AskForTopUp:
    """Return a function that asks for a top-up by pausing the current flow run.

    It may be called from any thread, one at a time.
    """
    # of the flow run, which other threads do not have
    context = contextvars.copy_context()

    def ask(error: BudgetExceeded) -> Decimal | None:
        text = (
            f"The run waits for money: {error}. How many USD may be added? "
            "With 0, what is left waits as deferred."
        )
        form = MoreMoney.with_initial_data(description=text)
        seconds = int(LONGEST_PAUSE.total_seconds())
        try:
            answer = context.run(
                pause_flow_run, form, timeout=seconds, poll_interval=_POLL_S
            )
        except (FlowPauseTimeout, RuntimeError) as refusal:
            # no answer, or this run cannot pause
            log.warning("no money was granted: %s", refusal)
            return None
        return Decimal(str(answer.add_usd)) if answer.add_usd > 0 else None

    return ask
