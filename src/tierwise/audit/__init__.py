"""The tamper-evident audit trail as files, and its verification."""
