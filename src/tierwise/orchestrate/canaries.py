"""Canaries before a run: they restore or void the certificates that a server suspended."""

from __future__ import annotations

import logging

from tierwise.engine import Engine, StepRunner

log = logging.getLogger(__name__)


def restore_suspended(runner: StepRunner) -> None:
    """Ask canaries of suspended certificates, as far as the project's settings allow.

    They are a run of their own with a budget of its own, and no failure of theirs ends the run that
    comes after them. Without a budget, only free models of in-house tiers are asked.
    """
    if not isinstance(runner, Engine):
        return
    settings = runner.project.settings.canaries
    runner.update_demotions()
    if not settings.items or not runner.suspended:
        return
    # It loads NumPy and SciPy, which a run without suspended certificates does not need.
    from tierwise.evidence.canaries import ask_all

    try:
        results = ask_all(
            runner,
            items=settings.items,
            budget_usd=settings.budget_usd,
            only_free=settings.budget_usd is None,
        )
    except Exception as error:  # noqa: BLE001 - as above
        log.warning("canaries could not be asked: %s", type(error).__name__)
        return
    for result in results:
        log.warning("%s", result.sentence)
