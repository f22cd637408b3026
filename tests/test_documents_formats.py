"""Reading PDF, Word, HTML and e-mail: real files, made here."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pypdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.office_files import mail, pdf, word
from tests.kit.reading import read, reason
from tierwise.documents.readers.formats import MOST_UNPACKED_BYTES, extract
from tierwise.documents.readers.sandbox import Sandbox
from tierwise.errors import DocumentError


def encrypted_pdf(password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("Locked away")))
    writer.encrypt(password, "owner", algorithm="AES-256")
    writer.write(file := io.BytesIO())
    return file.getvalue()


def pdf_with_page(content: bytes) -> bytes:
    """A PDF whose one page holds this compressed stream."""
    raw = zlib.compress(content, 9)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]/Contents 4 0 R>>",
        b"<</Length %d/Filter/FlateDecode>>\nstream\n" % len(raw)
        + raw
        + b"\nendstream",
    ]
    file, places = b"%PDF-1.4\n", []
    for number, content_ in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n" % number + content_ + b"\nendobj\n"
    table = b"xref\n0 5\n0000000000 65535 f \n" + b"".join(
        b"%010d 00000 n \n" % place for place in places
    )
    return (
        file
        + table
        + b"trailer\n<</Root 1 0 R/Size 5>>\nstartxref\n%d\n%%%%EOF" % len(file)
    )


def word_with_entities(declarations: bytes, use: bytes) -> bytes:
    part = "word/document.xml"
    changed = word(
        replaced={
            part: (b"<w:document", b"<!DOCTYPE x [" + declarations + b"]><w:document")
        }
    )
    with (
        zipfile.ZipFile(io.BytesIO(changed)) as old,
        zipfile.ZipFile(file := io.BytesIO(), "w") as new,
    ):
        for name in old.namelist():
            new.writestr(
                name,
                old.read(name).replace(b"on Monday", use)
                if name == part
                else old.read(name),
            )
    return file.getvalue()


@pytest.fixture
def visits() -> Iterator[tuple[str, list[str]]]:
    """A web server's address, and the paths that anybody asked it for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


def test_every_format_gives_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("The invoice is due on Friday, please pay."))
    (tmp_path / "b.docx").write_bytes(word())
    (tmp_path / "c.html").write_text(
        "<title>T</title><body><h1>News</h1><p>We <b>moved</b>.<script>x()</script></body>"
    )
    (tmp_path / "d.eml").write_bytes(bytes(mail()))
    (tmp_path / "f.pdf").write_bytes(encrypted_pdf(""))  # opens without a password
    (tmp_path / "e.htm").write_bytes(
        '<meta charset="iso-8859-1"><p>Größe „x“'.encode("cp1252")
    )
    documents = read(tmp_path)
    assert {name: document.text for name, document in documents.items()} == {
        "a.pdf": "The invoice is due on Friday, please pay.",
        "b.docx": "# Offer\n\nWe deliver on Monday.",
        "c.html": "# News\n\nWe **moved**.",
        "d.eml": "Subject: Order 7\n\nWhere is my order?",
        "e.htm": "Größe „x“",
        "f.pdf": "Locked away",
    }
    assert documents["a.pdf"].language == "en"
    assert documents["b.docx"].metadata == {"path": "b.docx", "format": "docx"}


def test_what_cannot_be_read_is_deferred_and_says_what_to_do(tmp_path: Path) -> None:
    """Nor does it keep the next file from being read."""
    ole = bytes.fromhex("d0cf11e0a1b11ae1")
    many = b"\0" * (MOST_UNPACKED_BYTES + 1)
    files = {
        "locked.pdf": (
            encrypted_pdf("secret"),
            "encrypted; save a copy without a password",
        ),
        "scan.pdf": (pdf(), "it may be a scan"),
        "junk.pdf": (b"%PDF-1.4 junk", "damaged"),
        "cut.pdf": (pdf("hello")[:400], "damaged"),
        "locked.docx": (
            ole + "EncryptedPackage".encode("utf-16-le"),
            "encrypted; save a copy without a password",
        ),
        "old.docx": (ole, "save it as .docx"),
        "cut.docx": (word()[:3000], "damaged"),
        "other.docx": (b"hello", "damaged"),
        "bomb.docx": (
            word(added={"word/media/x.bin": many}),
            "would unpack to more than 50,000,000 bytes",
        ),
        "empty.docx": (b"", "the file is empty"),
        "bare.html": (b"<p></p>", "no text found"),
        "binary.html": (b"\x00\x01", "binary"),
        "none.eml": (b"just some words", "none of an e-mail's headers"),
        "sealed.eml": (
            b"Subject: x\nContent-Type: multipart/encrypted; boundary=a\n\n--a--",
            "encrypted",
        ),
    }
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "zz.eml").write_bytes(bytes(mail()))
    documents = read(tmp_path)
    assert {
        n: reason(documents[n])
        for n, (_, want) in files.items()
        if want not in reason(documents[n])
    } == {}
    assert documents["zz.eml"].text.endswith("Where is my order?")


def test_a_file_that_takes_too_long_is_deferred_and_the_next_one_is_read(
    tmp_path: Path,
) -> None:
    """60 kB of unclosed tags keep the HTML parser busy for half a minute."""
    (tmp_path / "a.html").write_bytes(b"<a " * 200_000)
    (tmp_path / "b.eml").write_bytes(bytes(mail()))
    documents = read(tmp_path, max_seconds=2)
    assert "took longer than 2 s" in reason(documents["a.html"])
    assert documents["b.eml"].text.endswith("Where is my order?")


def test_a_file_that_needs_too_much_memory_is_deferred() -> None:
    bomb = pdf_with_page(b"\n" * 120_000_000)
    assert len(bomb) < 150_000
    with Sandbox(memory_bytes=192 << 20) as sandbox:
        assert sandbox.extract(pdf("small"), ".pdf").text.strip() == "small"
        with pytest.raises(DocumentError, match=r"memory|ended its process"):
            sandbox.extract(bomb, ".pdf")
        assert sandbox.extract(pdf("small"), ".pdf").text.strip() == "small"


def test_nothing_is_fetched_and_no_other_file_is_read(
    tmp_path: Path, visits: tuple[str, list[str]]
) -> None:
    """Images, style sheets, frames, linked pictures and external entities stay where they are."""
    address, paths = visits
    secret = tmp_path / "secret"
    secret.write_text("the-secret-words")
    page = (
        f'<link rel=stylesheet href="{address}/a"><body>Hello <img src="{address}/b">'
        f'<iframe src="{address}/c">'
    )
    schemas = "http://schemas.openxmlformats.org"
    relation = (
        f'<Relationship Id="r99" TargetMode="External" Target="{address}/d" '
        f'Type="{schemas}/officeDocument/2006/relationships/image"/></Relationships>'
    )
    picture = (
        "<w:body><w:p><w:r><w:drawing><wp:inline><a:graphic><a:graphicData>"
        f'<pic:pic xmlns:pic="{schemas}/drawingml/2006/picture">'
        '<pic:blipFill><a:blip r:link="r99"/></pic:blipFill>'
        "</pic:pic></a:graphicData></a:graphic></wp:inline></w:drawing></w:r></w:p>"
    )
    linked = word(
        replaced={
            "word/_rels/document.xml.rels": (b"</Relationships>", relation.encode()),
            "word/document.xml": (b"<w:body>", picture.encode()),
        }
    )
    entities = f'<!ENTITY f SYSTEM "{secret.as_uri()}"><!ENTITY w SYSTEM "{address}/e">'.encode()
    sources = {
        "a.html": page.encode(),
        "b.eml": bytes(mail(plain=None, html=page)),
        "c.docx": linked,
        "d.docx": word_with_entities(entities, b"&f; &w;"),
        "e.docx": word_with_entities(
            f'<!ENTITY % p SYSTEM "{address}/f"> %p;'.encode(), b"on Monday"
        ),
    }
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in sources.items():
        (folder / name).write_bytes(content)
    documents = read(folder)
    assert "We deliver on Monday." in documents["c.docx"].text
    assert documents["b.eml"].text.startswith("Subject: Order 7\n\nHello")
    assert not [
        document
        for document in documents.values()
        if "the-secret-words" in document.text
    ]
    assert paths == []


def test_nested_entities_do_not_fill_the_memory() -> None:
    entities = b'<!ENTITY a0 "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10)
    )
    with pytest.raises(DocumentError):
        extract(word_with_entities(entities, b"&a9;"), ".docx")


# --- e-mail --------------------------------------------------------------------------------------


def test_an_e_mails_headers_are_metadata_and_its_attachments_are_named(
    tmp_path: Path,
) -> None:
    message = mail(
        Date="Mon, 02 Nov 2026 10:00:00 +0000", html="<p>Where is <b>it</b>?"
    )
    message.add_attachment(
        b"%PDF", maintype="application", subtype="pdf", filename="Rechnung März.pdf"
    )
    message.add_attachment(mail("Inner text"))
    (tmp_path / "a.eml").write_bytes(bytes(message))
    document = read(tmp_path)["a.eml"]
    start, _, end = document.text.partition("---------- Attached message")
    assert start == "Subject: Order 7\n\nWhere is my order?\n\n"
    assert "Inner text" in end
    assert "Attachments: Rechnung März.pdf (4 bytes, " in end
    assert document.metadata == {
        "subject": "Order 7",
        "from": "Ann <ann@example.com>",
        "to": "us@example.com",
        "date": "Mon, 02 Nov 2026 10:00:00 +0000",
        "attachments": "Rechnung März.pdf",
        "path": "a.eml",
        "format": "eml",
    }


def eml(*lines: bytes) -> bytes:
    return b"\r\n".join([b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=", *lines])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            bytes(mail(plain=None, html="<p>Where is <b>it</b>?")),
            "Subject: Order 7\n\nWhere is **it**?",
        ),
        (
            bytes(mail(plain="  \n", html="<p>Only HTML")),
            "Subject: Order 7\n\nOnly HTML",
        ),
        (
            eml(
                b"Content-Type: text/plain; charset=iso-2022-jp",
                b"",
                "注文".encode("iso-2022-jp"),
            ),
            "Subject: Grüße\n\n注文",
        ),
        (
            eml(b"Content-Type: text/plain; charset=no-such", b"", "Größe".encode()),
            "Subject: Grüße\n\nGröße",
        ),
        (
            eml(b"Content-Type: text/plain; charset=us-ascii", b"", "Größe".encode()),
            "Subject: Grüße\n\nGröße",
        ),
        (
            eml(b"Content-Transfer-Encoding: base64", b"", b"SGVsbG8="),
            "Subject: Grüße\n\nHello",
        ),
        (
            eml(
                b"Content-Type: multipart/mixed; boundary=b",
                b"",
                b"--b",
                b"",
                b"Hello",
                b"--b--",
            ),
            "Subject: Grüße\n\nHello",
        ),
        (b"From: a@example.com\n\nHello", "Subject: (none)\n\nHello"),
        (b"Subject: only a subject\n\n", "Subject: only a subject\n\n"),
    ],
)
def test_an_e_mails_body_is_found_and_decoded(data: bytes, text: str) -> None:
    assert extract(data, ".eml").text.rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize(
    ("header", "level"),
    [
        ("Company-Confidential", "confidential"),
        ("Private", "confidential"),
        ("normal", "internal"),
    ],
)
def test_an_e_mails_sensitivity_header_raises(
    tmp_path: Path, header: str, level: str
) -> None:
    (tmp_path / "a.eml").write_bytes(bytes(mail(Sensitivity=header)))
    document = read(tmp_path)["a.eml"]
    assert document.sensitivity == level
    assert "sensitivity_note" not in document.metadata


# --- anything ------------------------------------------------------------------------------------


def damaged(original: bytes) -> st.SearchStrategy[bytes]:
    """The original with a few bytes replaced by others."""
    change = st.tuples(st.integers(0, len(original)), st.binary(max_size=8))

    def apply(changes: list[tuple[int, bytes]]) -> bytes:
        data = original
        for place, piece in changes:
            data = data[:place] + piece + data[place + len(piece) :]
        return data

    return st.lists(change, min_size=1, max_size=4).map(apply)


HEADER_BYTES = st.lists(
    st.sampled_from(
        [
            b"To: ",
            b"Date: ",
            b"Content-Type: ",
            b"=?utf-8?q?",
            b"(",
            b"<",
            b'"',
            b"a@b",
            b";",
            b"\n",
            b"\xff",
        ]
    )
)
CONTENTS: dict[str, Callable[[], st.SearchStrategy[bytes]]] = {
    ".pdf": lambda: st.binary() | damaged(pdf("Hello there")),
    ".docx": lambda: st.binary() | damaged(word()),
    ".html": lambda: st.binary() | st.text("<>/=\"' apdivtable&;!-").map(str.encode),
    ".eml": lambda: (
        st.binary()
        | HEADER_BYTES.map(lambda parts: b"Subject: x\n" + b"".join(parts))
        | damaged(bytes(mail()))
    ),
}


@pytest.mark.parametrize("suffix", CONTENTS)
def test_any_bytes_give_a_text_or_a_document_error(suffix: str) -> None:
    @settings(max_examples=8 if suffix == ".docx" else 60, deadline=None)
    @given(CONTENTS[suffix]())
    def check(data: bytes) -> None:
        try:
            found = extract(data, suffix)
        except DocumentError:
            return
        assert isinstance(found.text, str)

    check()
