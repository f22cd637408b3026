"""Explanations of routing: the decisions on record, and those that other rules would make."""
