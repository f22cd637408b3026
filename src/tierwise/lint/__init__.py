"""Checks of a project's files, and the proof that its guards cannot be bypassed."""
