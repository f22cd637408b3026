"""The table of formats, and the conversion of one file with every failure as a DocumentError.

To add a format, write a module with a function from bytes to Extracted, and name it in CONVERTERS;
one that reads the project's settings, too, in WITH_SETTINGS. A project's own readers are in
`own.py`.

markitdown's converters are called one by one, by the file's ending. The library's own front end
is left out: it guesses formats from content, unpacks archives, and fetches web addresses.
"""

from __future__ import annotations

from collections.abc import Callable

from tierwise.documents.readers.archives import read_zip
from tierwise.documents.readers.excel import read_xlsx
from tierwise.documents.readers.html import read_html
from tierwise.documents.readers.mail import read_mail, read_msg
from tierwise.documents.readers.opendocument import read_odp, read_ods, read_odt
from tierwise.documents.readers.own import read_own
from tierwise.documents.readers.pages.pictures import read_picture
from tierwise.documents.readers.pages.recognizer import Recognizer
from tierwise.documents.readers.pages.rendering import PICTURES
from tierwise.documents.readers.pages.showing import show_pages
from tierwise.documents.readers.pdf import read_pdf
from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.rtf import read_rtf
from tierwise.documents.readers.settings import Request
from tierwise.documents.readers.slides import read_pptx
from tierwise.documents.readers.structured import read_json, read_xml
from tierwise.documents.readers.unpacking import DAMAGED, MOST_UNPACKED_BYTES
from tierwise.documents.readers.word import read_docx
from tierwise.errors import DocumentError

# The formats of pages: what is not in letters is read by text recognition.
PAGED: dict[str, Callable[[bytes, Recognizer | None], Extracted]] = {
    ".pdf": read_pdf,
    **dict.fromkeys(PICTURES, read_picture),
}
# These run in a child process with limits (`sandbox.py`), as their parsers are not trusted.
CONVERTERS: dict[str, Callable[[bytes], Extracted]] = {
    ".docm": read_docx,
    ".docx": read_docx,
    ".htm": read_html,
    ".html": read_html,
    ".odp": read_odp,
    ".odt": read_odt,
    ".pdf": read_pdf,
    **dict.fromkeys(PICTURES, read_picture),
    ".pptm": read_pptx,
    ".pptx": read_pptx,
    ".rtf": read_rtf,
}
WITH_SETTINGS: dict[str, Callable[[bytes, Request], Extracted]] = {
    ".eml": read_mail,
    ".json": read_json,
    ".msg": read_msg,
    ".ods": read_ods,
    ".xlsm": read_xlsx,
    ".xlsx": read_xlsx,
    ".xml": read_xml,
    ".zip": read_zip,
}
ROWS = (".csv", ".jsonl")  # one document a row, see `rows.py`
TEXTS = (".md", ".txt")
ACCEPTED = tuple(sorted([*CONVERTERS, *WITH_SETTINGS, *ROWS, *TEXTS]))
# Files with several documents, each of which has a shard of its own.
SEVERAL = (*ROWS, ".json", ".ods", ".xlsm", ".xlsx", ".xml", ".zip")

# Of files that are not read: how to make one that is.
_REMEDIES = {
    ".7z": "unpack it, or pack it as .zip",
    ".doc": "save it as .docx",
    ".gz": "unpack it, or pack it as .zip",
    ".heic": "save it as .jpg or .png",
    ".jp2": "save it as .jpg or .png",
    ".key": "export it as .pdf or .pptx",
    ".mbox": "export its messages as .eml",
    ".numbers": "export it as .xlsx",
    ".pages": "export it as .docx",
    ".ppt": "save it as .pptx",
    ".pst": "export its messages as .eml or .msg",
    ".rar": "unpack it, or pack it as .zip",
    ".svg": "export it as .pdf or .png",
    ".tar": "unpack it, or pack it as .zip",
    ".tgz": "unpack it, or pack it as .zip",
    ".xls": "save it as .xlsx",
    ".xlsb": "save it as .xlsx",
}

# By the class of the foreign error. Its text may quote the document, so it is left out.
_REASONS = {
    "PDFPasswordIncorrect": "the PDF is encrypted; save a copy without a password",
    "PDFEncryptionError": "the PDF is encrypted in an unknown way; save a copy without a password",
    "PDFSyntaxError": DAMAGED,
    "PSEOF": DAMAGED,
    "PDFNoValidXRef": DAMAGED,
    "BadZipFile": DAMAGED,
    "InvalidFileException": DAMAGED,
    "PackageNotFoundError": DAMAGED,
    "XMLSyntaxError": DAMAGED,
    "KeyError": DAMAGED,
    "MemoryError": "converting it needs too much memory; split it or save it as plain text",
}
# The names under which pip knows modules, where they differ.
_PACKAGES = {"pptx": "python-pptx"}


def why_not_accepted(suffix: str, request: Request) -> str:
    """Say why files with this ending are not read, and what to do; empty where they are."""
    own = request.settings.own
    if suffix in ACCEPTED or suffix in own:
        return ""
    remedy = _REMEDIES.get(suffix)
    if remedy:
        return f"{suffix} files are not read; {remedy}"
    return (
        "files like this are not read; save it as .pdf, .docx, .xlsx or .txt, or give them a reader "
        "in [tool.tierwise.readers] of pyproject.toml"
    )


def extract(
    data: bytes, request: Request | str, recognizer: Recognizer | None = None
) -> Extracted:
    """Convert the bytes of a file; a request may be the ending alone.

    Pages without text in letters are read by the recognizer, if there is one. Raises DocumentError,
    and nothing else.
    """
    if isinstance(request, str):
        request = Request(request)
    suffix = request.suffix
    if not request.settings.ocr:
        recognizer = None
    problem = why_not_accepted(suffix, request)
    if problem:
        raise DocumentError(problem)
    try:
        if request.show and suffix in PAGED:
            extracted = show_pages(data, suffix, request.show)
        elif suffix in request.settings.own:
            extracted = read_own(data, request)
        elif suffix in WITH_SETTINGS:
            extracted = WITH_SETTINGS[suffix](data, request)
        elif suffix in PAGED:
            extracted = PAGED[suffix](data, recognizer)
        else:
            extracted = CONVERTERS[suffix](data)
    except DocumentError:
        raise
    except ImportError as error:
        raise DocumentError(_why_missing(suffix, error)) from error
    except Exception as error:
        # parsers raise anything on hostile bytes; none may stop a batch
        name = type(error).__name__
        unknown = f"it could not be converted ({name}); save it again or as plain text"
        raise DocumentError(_REASONS.get(name, unknown)) from error
    texts = [extracted, *(part.extracted for part in extracted.parts if part.extracted)]
    if sum(len(each.text) for each in texts) > MOST_UNPACKED_BYTES:
        raise DocumentError(
            f"it holds more than {MOST_UNPACKED_BYTES:,} characters; split it"
        )
    return extracted


def _why_missing(suffix: str, error: ImportError) -> str:
    """Say which package to install for a format whose library is not there."""
    module = (error.name or "").partition(".")[0]
    package = _PACKAGES.get(module, module)
    return (
        f"{suffix} files are read with the package {package}, which is missing; install it: "
        f"pip install {package}"
    )
