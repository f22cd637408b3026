"""What a page says about the last action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tierwise.ledger import Decision
from tierwise.records import Verdict


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What a page says about the last action. `is_fault` is read out at once.

    `decisions` are those of others that the person had not seen, `failed` the checks that an
    edited answer fails, `lines` further sentences.
    """

    text: str
    is_fault: bool = False
    decisions: Sequence[Decision] = ()
    failed: Sequence[Verdict] = ()
    lines: Sequence[str] = ()
