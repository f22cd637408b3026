"""PII redaction: the only way to lower a document's sensitivity, after a stricter second look.

redact    replaces personal data by placeholders and decides the new sensitivity
patterns  finds personal data by its form: addresses, numbers, handles
names     finds the names of people where a letter or form states them
"""
