"""The table of formats, and the conversion of one file with every failure as a DocumentError.

To add a format, write a module with a function from bytes to Extracted, and name it in CONVERTERS.

markitdown's converters are called one by one, by the file's ending. The library's own front end
is left out: it guesses formats from content, unpacks archives, and fetches web addresses.
"""

from __future__ import annotations

from collections.abc import Callable

from tierwise.documents.readers.html import read_html
from tierwise.documents.readers.mail import read_mail
from tierwise.documents.readers.pdf import read_pdf
from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.word import MOST_UNPACKED_BYTES, read_docx
from tierwise.errors import DocumentError

# These run in a child process with limits (`sandbox.py`), as their parsers are not trusted.
CONVERTERS: dict[str, Callable[[bytes], Extracted]] = {
    ".docx": read_docx,
    ".eml": read_mail,
    ".htm": read_html,
    ".html": read_html,
    ".pdf": read_pdf,
}
ROWS = (".csv", ".jsonl")  # one document a row, see `rows.py`
TEXTS = (".md", ".txt")
ACCEPTED = tuple(sorted([*CONVERTERS, *ROWS, *TEXTS]))

_DAMAGED = "the file is damaged or not what its ending says; ask for a new copy"
# By the class of the foreign error. Its text may quote the document, so it is left out.
_REASONS = {
    "PDFPasswordIncorrect": "the PDF is encrypted; save a copy without a password",
    "PDFEncryptionError": "the PDF is encrypted in an unknown way; save a copy without a password",
    "PDFSyntaxError": _DAMAGED,
    "PSEOF": _DAMAGED,
    "PDFNoValidXRef": _DAMAGED,
    "BadZipFile": _DAMAGED,
    "MemoryError": "converting it needs too much memory; split it or save it as plain text",
}


def extract(data: bytes, suffix: str) -> Extracted:
    """Convert the bytes of a file whose ending is in CONVERTERS.

    Raises DocumentError, and nothing else.
    """
    convert = CONVERTERS.get(suffix)
    if convert is None:
        raise DocumentError(f"{suffix} files are not read")
    try:
        extracted = convert(data)
    except DocumentError:
        raise
    except Exception as error:
        # parsers raise anything on hostile bytes; none may stop a batch
        name = type(error).__name__
        unknown = f"it could not be converted ({name}); save it again or as plain text"
        raise DocumentError(_REASONS.get(name, unknown)) from error
    if len(extracted.text) > MOST_UNPACKED_BYTES:
        raise DocumentError(
            f"it holds more than {MOST_UNPACKED_BYTES:,} characters; split it"
        )
    return extracted
