"""A step as values: its output model, its prompt, its checks, and what counts as correct."""
