"""The cascade: route a document, then try one model after the other until an answer passes."""

from __future__ import annotations

from tierwise.cascade.attempts import Job, Provider, RunContext
from tierwise.cascade.cascade import Cascade

__all__ = ["Cascade", "Job", "Provider", "RunContext"]
