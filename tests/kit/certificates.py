"""Certificates as tests make them."""

from __future__ import annotations

import datetime
from typing import Any

from tierwise.policy.certificates import (
    Certificate,
    lower_bound,
)

TODAY = datetime.date(2026, 3, 1)


def certificate(
    *models: str, errors: int = 8, n: int = 142, **changed: Any
) -> Certificate:
    models = models or changed.pop("models", ("small",))
    fields: dict[str, Any] = {
        "step": "classify",
        "models": models,
        "identities": {name: f"{name}-1" for name in models},
        "prompt": "classify v1",
        "prompt_hash": "p1",
        "step_hash": "s1",
        "golden": "classify.jsonl",
        "golden_hash": "g1",
        "errors": errors,
        "n": n,
        "bound": changed.get("bound") or lower_bound(errors, n),
        "date": TODAY,
        "tierwise_version": "0.1.0",
    }
    return Certificate(**{**fields, **changed})
