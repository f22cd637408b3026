"""Checks of a project's files, and the proof that no guard can be passed."""
