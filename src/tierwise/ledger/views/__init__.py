"""Read-only queries for commands and reports."""
