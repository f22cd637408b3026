"""The entries of the desk's navigation, in order."""

from __future__ import annotations

from typing import NamedTuple

from tierwise.policy.desk_settings import Role


class Entry(NamedTuple):
    """One entry, shown to people with at least this role."""

    title: str
    path: str
    role: Role


NAVIGATION = (
    Entry("Overview", "/", "viewer"),
    Entry("Runs", "/runs", "viewer"),
    Entry("Alerts", "/alerts", "viewer"),
    Entry("Reviews", "/review", "viewer"),
    Entry("Labels", "/labels", "viewer"),
    Entry("Compare", "/compare", "viewer"),
)
