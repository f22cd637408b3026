"""How the calls of a planned run are expected to go: online or in provider batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from tierwise.plan.plan import CostRow
from tierwise.policy.catalog import Model
from tierwise.policy.transport import (
    TransportSetting,
    Turnaround,
    expected_turnaround,
    transport_for,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTransports:
    """What the choice between the transports depends on, besides the model.

    `time_left_s` is None without a deadline. `turnaround` says how long a model's batches took.
    """

    time_left_s: float | None
    turnaround: Callable[[str], Turnaround | None]

    def applied(
        self,
        row: CostRow,
        model: Model | None,
        in_batches: Decimal,
        setting: TransportSetting,
        *,
        elapsed_s: float,
        steps_left: int,
    ) -> CostRow:
        """Return a row with its bill and its duration in batches, and the cost as it will go.

        `model` is None where no call may go in a batch. `elapsed_s` is how long the steps before
        take.
        """
        if model is None or model.batch is None:
            return row
        turnaround = self.turnaround(model.name)
        batch_s, basis = expected_turnaround(model.batch, turnaround)
        time_left_s = self.time_left_s
        if time_left_s is not None:
            time_left_s -= elapsed_s
        choice = transport_for(
            setting,
            model.batch,
            time_left_s=time_left_s,
            steps_left=steps_left,
            turnaround=turnaround,
        )
        expected = in_batches if choice.transport == "batch" else row.expected
        return replace(
            row,
            transport=choice.transport,
            expected=expected,
            in_batches=in_batches,
            batch_s=batch_s,
            batch_basis=basis,
        )
