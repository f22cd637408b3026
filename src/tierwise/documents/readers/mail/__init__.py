"""E-mail files (.eml): all their texts in order, and a list of what is not in the text.

reading       one file becomes text and metadata, or the reason why it waits
saved         what editors and mailbox files do to a message: marks, blank lines, UTF-16
entity        a message or part: its headers, its type, its decoded content
multipart     the parts between boundaries, also between wrong ones
parts         the walk over the parts: each one is read, or kept as left out
left_out      the parts that are not in the text: names, sizes, hashes
alternatives  the plain and the HTML version of one text
markup        text/enriched, flowed text
blocks        uuencoded files and PGP messages inside a text
invitations   text/calendar
outlook       winmail.dat (TNEF)
signed        S/MIME signed data
"""

from __future__ import annotations

from tierwise.documents.readers.mail.message_files import read_msg
from tierwise.documents.readers.mail.reading import read_mail

__all__ = ["read_mail", "read_msg"]
