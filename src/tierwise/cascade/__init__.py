"""The cascade: route a document, then try one model after the other until an answer passes."""

from __future__ import annotations

from tierwise.cascade.attempts import Provider
from tierwise.cascade.cascade import Cascade
from tierwise.cascade.job import Job, RunContext

__all__ = ["Cascade", "Job", "Provider", "RunContext"]
