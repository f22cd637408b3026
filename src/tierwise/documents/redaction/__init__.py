"""PII redaction: the only way to lower a document's sensitivity, after a stricter second look."""
