"""Archives and attached files: documents inside of a file, which know what they are in."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from tests.kit.mails import attached, forwarded, message, multipart, part
from tests.kit.office_files import mail, word
from tests.kit.reading import read, reason
from tierwise.documents import LeftOut, Origin, Shard, iter_documents
from tierwise.documents.file_contents import MOST_ARCHIVE_BYTES
from tierwise.documents.readers import ReadingSettings
from tierwise.documents.sources import file_of

LAMP = "The lamp is late."
SOFA = "The sofa is torn."


def packed(members: dict[str, bytes | str], **options: int) -> bytes:
    """A .zip file."""
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return output.getvalue()


# --- archives ------------------------------------------------------------------------------------


def test_the_members_of_an_archive_are_documents(tmp_path: Path) -> None:
    files = {
        "letters/lamp.txt": LAMP,
        "offer.docx": word(),
        "rows.csv": f"id,text\nA1,{SOFA}\n",
        "lines.jsonl": '{"text": "One line."}',
        "mail.eml": bytes(mail()),
        "notes.md": "---\nsensitivity: restricted\ntopic: lamps\n---\nA note.",
        "folder/": "",
    }
    (tmp_path / "post.zip").write_bytes(packed(files))
    documents = read(tmp_path)
    assert {name: document.text for name, document in documents.items()} == {
        "post.zip/letters/lamp.txt": LAMP,
        "post.zip/offer.docx": "# Offer\n\nWe deliver on Monday.",
        "post.zip/rows.csv#A1": SOFA,
        "post.zip/lines.jsonl#1": "One line.",
        "post.zip/mail.eml": "Subject: Order 7\n\nWhere is my order?",
        "post.zip/notes.md": "A note.",
    }
    lamp = documents["post.zip/letters/lamp.txt"]
    assert lamp.metadata == {"path": "post.zip", "format": "txt"}
    note = documents["post.zip/notes.md"]
    assert note.sensitivity == "restricted"
    assert note.metadata["topic"] == "lamps"


def encrypted_member() -> bytes:
    """A member whose directory entry says that it is encrypted."""
    data = bytearray(packed({"a.txt": LAMP}))
    for start, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(start) + at] |= 1
    return bytes(data)


def linked_member() -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        info = zipfile.ZipInfo("a.txt")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return output.getvalue()


def broken_member() -> bytes:
    data = packed({"a.txt": "x" * 50, "b.txt": LAMP})
    return data.replace(b"PK\x03\x04", b"PK\x03\x05", 1)


def changed_member() -> bytes:
    """A member whose content does not have the checksum of its entry."""
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("a.txt", LAMP)
    return output.getvalue().replace(b"The lamp", b"The lump")


def unknown_compression() -> bytes:
    data = bytearray(packed({"a.txt": LAMP}))
    for start, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = data.index(start) + at
        data[place : place + 2] = struct.pack("<H", 98)
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "key", "words"),
    [
        (encrypted_member, "/a.txt", "password"),
        (linked_member, "/a.txt", "link"),
        (broken_member, "/a.txt", "damaged"),
        (changed_member, "/a.txt", "damaged"),
        (unknown_compression, "/a.txt", "pack it again"),
        (lambda: packed({"a.exe": "MZ"}), "/a.exe", "save it as .pdf"),
        (lambda: packed({"old.doc": "x"}), "/old.doc", "save it as .docx"),
        (lambda: packed({"a.txt": ""}), "/a.txt", "empty"),
        (lambda: packed({"a.txt": b"\0" * 30_000_000}), "/a.txt", "200 times"),
        (lambda: packed({"cut.docx": word()[:900]}), "/cut.docx", "damaged"),
        (lambda: packed({}), "", "the archive is empty"),
        (lambda: packed({"a/": ""}), "", "the archive is empty"),
        (lambda: packed({"a.txt": LAMP})[:40], "", "damaged"),
        (lambda: b"no archive", "", "damaged"),
        (lambda: packed({f"{n}": "" for n in range(10_001)}), "", "10,000"),
    ],
)
def test_what_cannot_be_read_in_an_archive_waits(
    tmp_path: Path, make: Callable[[], bytes], key: str, words: str
) -> None:
    (tmp_path / "a.zip").write_bytes(make())
    documents = read(tmp_path)
    assert words in reason(documents[f"a.zip{key}"])
    others = [document.text for name, document in documents.items() if name[-5] != "a"]
    assert set(others) <= {LAMP, ""}


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("../../etc/passwd.txt", "a.zip/_/_/etc/passwd.txt"),
        ("/etc/passwd.txt", "a.zip/etc/passwd.txt"),
        ("C:\\Windows\\a.txt", "a.zip/C_/Windows/a.txt"),
        ("a\\..\\..\\b.txt", "a.zip/a/_/_/b.txt"),
    ],
)
def test_a_name_that_leads_out_of_the_archive_waits_and_leads_nowhere(
    tmp_path: Path, name: str, id_: str
) -> None:
    (tmp_path / "a.zip").write_bytes(packed({name: "secret", "fine.txt": LAMP}))
    documents = read(tmp_path)
    assert "leads out" in reason(documents[id_])
    assert documents["a.zip/fine.txt"].text == LAMP


def test_odd_names_become_ids_that_can_be_printed(tmp_path: Path) -> None:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("a.txt", LAMP)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.txt", SOFA)
        archive.writestr("b\x07\u202e.txt", "bell")
        archive.writestr("Größe.txt", "large")
        archive.writestr("hid.txt", "cut")
        archive.writestr("folder\\z.txt", "Windows")
        archive.writestr(f"{'n' * 300}.txt", "long")
    # NUL ends a name in zipfile, so it is written in the place of another letter.
    content = output.getvalue().replace(b"hid.txt", b"h\0d.txt")
    (tmp_path / "a.zip").write_bytes(content)
    texts = {name: document.text for name, document in read(tmp_path).items()}
    assert texts["a.zip/a.txt"] == LAMP
    assert texts["a.zip/a.txt~2"] == SOFA
    assert texts["a.zip/b\\x07\\u202e.txt"] == "bell"
    assert texts["a.zip/Größe.txt"] == "large"
    assert texts["a.zip/folder/z.txt"] == "Windows"
    assert texts["a.zip/h"] == ""  # a file without an ending
    assert all(name.isprintable() for name in texts)


def test_files_of_other_programs_in_an_archive_are_left_out(tmp_path: Path) -> None:
    names = ("__MACOSX/._a.txt", ".DS_Store", "x/Thumbs.db", "~$a.docx")
    (tmp_path / "a.zip").write_bytes(
        packed({"a.txt": LAMP, **dict.fromkeys(names, "x")})
    )
    left_out = LeftOut()
    documents = list(
        iter_documents(tmp_path, sensitivity="internal", left_out=left_out)
    )
    assert [document.id for document in documents] == ["a.zip/a.txt"]
    assert left_out.has("of other programs")
    assert left_out.has("hidden")


def test_an_archive_that_holds_itself_ends(tmp_path: Path) -> None:
    content = packed({"a.txt": LAMP})
    for _ in range(12):
        content = packed({"a.zip": content, "a.txt": LAMP})
    (tmp_path / "a.zip").write_bytes(content)
    documents = read(tmp_path)
    assert len(documents) == 6
    assert "nested more than 4" in reason(documents["a.zip" + "/a.zip" * 5])


def test_an_archive_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Members that are small enough by themselves, and archives of archives."""
    one = b"\0" * 900_000
    number = MOST_ARCHIVE_BYTES // len(one) + 2
    (tmp_path / "many.zip").write_bytes(
        packed({f"{n}.txt": one for n in range(number)})
    )
    half = packed({f"{n}.txt": one for n in range(number // 2 + 1)})
    (tmp_path / "nested.zip").write_bytes(packed({"a.zip": half, "b.zip": half}))
    documents = read(tmp_path)
    assert "would unpack to more than" in reason(documents["many.zip"])
    waiting = [
        reason(document) for name, document in documents.items() if "nested" in name
    ]
    assert any("unpack to over" in words for words in waiting)


def test_shards_share_the_members_of_an_archive(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {f"{n}.txt": f"Letter {n}" for n in range(20)}
    members["mail.eml"] = message(
        multipart("mixed", part(LAMP), attached(SOFA.encode(), "a.txt", "text/plain"))
    )
    members["rows.csv"] = "text\nx\ny\nz\n"
    (tmp_path / "a.zip").write_bytes(packed(members))
    whole = sorted(read(tmp_path))
    shards = [sorted(read(tmp_path, shard=Shard(n, 4))) for n in range(1, 5)]
    assert all(shards)
    assert sorted(chain(*shards)) == whole


# --- attached files ------------------------------------------------------------------------------


def with_files(*files: bytes, text: str = LAMP) -> bytes:
    return message(multipart("mixed", part(text), *files))


def test_the_files_of_a_mail_are_documents_that_know_it(tmp_path: Path) -> None:
    archive = packed({"in/sofa.txt": SOFA})
    data = with_files(
        attached(word(), "offer.docx", "application/octet-stream"),
        attached(b"text\nOne\nTwo\n", "rows.csv", "text/csv"),
        attached(archive, "all.zip", "application/zip"),
        attached(b"MZ", "tool.exe", "application/octet-stream"),
        attached(SOFA.encode(), "offer.docx/../x.txt", "text/plain"),
        attached(SOFA.encode(), "", "text/plain"),
        attached(b"BEGIN:VCARD", "ann.vcf", "text/vcard"),
    )
    (tmp_path / "m.eml").write_bytes(data)
    documents = read(tmp_path)
    texts = {name: document.text for name, document in documents.items()}
    mail_text = texts.pop("m.eml")
    assert texts == {
        "m.eml/offer.docx": "# Offer\n\nWe deliver on Monday.",
        "m.eml/rows.csv#1": "One",
        "m.eml/rows.csv#2": "Two",
        "m.eml/all.zip/in/sofa.txt": SOFA,
        "m.eml/tool.exe": "",
        "m.eml/offer.docx_.._x.txt": SOFA,
    }
    assert SOFA in mail_text  # a text without a name is no file
    assert documents["m.eml"].metadata["incomplete"] == "the attached file ann.vcf"
    for name, document in documents.items():
        expected = None if name == "m.eml" else "m.eml"
        assert document.metadata.get("parent") == expected
        assert document.metadata["path"] == "m.eml"
    assert "save it as .pdf" in reason(documents["m.eml/tool.exe"])


def test_an_attached_file_is_as_sensitive_as_its_mail(tmp_path: Path) -> None:
    files = (
        attached(SOFA.encode(), "plain.txt", "text/plain"),
        attached(b"---\nsensitivity: public\n---\nx", "less.md", "text/markdown"),
        attached(b"---\nsensitivity: restricted\n---\ny", "more.md", "text/markdown"),
        attached(packed({"inner.txt": "z"}), "a.zip", "application/zip"),
        attached(b"MZ", "tool.exe", "application/octet-stream"),
    )
    data = b"Sensitivity: Company-Confidential\n" + with_files(*files)
    (tmp_path / "m.eml").write_bytes(data)
    levels = {
        name: document.sensitivity
        for name, document in read(tmp_path, "public").items()
    }
    assert levels == {
        "m.eml": "confidential",
        "m.eml/plain.txt": "confidential",
        "m.eml/less.md": "confidential",
        "m.eml/more.md": "restricted",
        "m.eml/a.zip/inner.txt": "confidential",
        "m.eml/tool.exe": "confidential",
    }


def test_a_mail_whose_text_is_a_file_goes_on_with_it(tmp_path: Path) -> None:
    rows = attached(f"text\n{SOFA}\n".encode(), "rows.csv", "application/vnd.ms-excel")
    (tmp_path / "m.eml").write_bytes(message(rows))
    (tmp_path / "n.eml").write_bytes(
        message(multipart("mixed", part(""), forwarded(message(rows))))
    )
    documents = read(tmp_path)
    assert documents["m.eml"].text.startswith(
        "Subject: Order 7\n\nAttachments: rows.csv"
    )
    assert documents["m.eml/rows.csv#1"].text == SOFA
    assert documents["n.eml/rows.csv#1"].metadata["parent"] == "n.eml"


def test_a_parent_has_the_id_that_it_has_in_the_run(tmp_path: Path) -> None:
    """In the second source of a run, ids begin with their source."""
    data = with_files(attached(SOFA.encode(), "a.txt", "text/plain"))
    (tmp_path / "m.eml").write_bytes(data)
    origin = Origin("mail/b", is_further=True)
    mail_, file = iter_documents(tmp_path, sensitivity="internal", origin=origin)
    assert file.id == "mail/b//m.eml/a.txt"
    assert file.metadata["parent"] == mail_.id


def test_a_picture_in_a_mail_goes_to_the_reader_of_pictures(tmp_path: Path) -> None:
    picture = attached(b"no picture", "photo.png", "image/png")
    (tmp_path / "m.eml").write_bytes(with_files(picture))
    documents = read(tmp_path)
    assert documents["m.eml/photo.png"].metadata["format"] == "png"
    assert "picture" in reason(documents["m.eml/photo.png"])


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = [attached(f"Page {n}".encode(), "a.txt", "text/plain") for n in range(3)]
    (tmp_path / "m.eml").write_bytes(with_files(*files))
    assert sorted(read(tmp_path)) == [
        "m.eml",
        "m.eml/a.txt",
        "m.eml/a.txt~2",
        "m.eml/a.txt~3",
    ]


def test_only_the_names_of_attached_files_where_a_setting_says_so(
    tmp_path: Path,
) -> None:
    data = with_files(attached(SOFA.encode(), "a.txt", "text/plain"))
    (tmp_path / "m.eml").write_bytes(data)
    [document] = read(tmp_path, settings=ReadingSettings(attachments="names")).values()
    assert document.metadata["incomplete"] == "the attached file a.txt"


def test_mails_in_mails_end(tmp_path: Path) -> None:
    data = packed({"a.txt": SOFA})
    for _ in range(8):
        inner = with_files(attached(data, "x.zip", "application/zip"))
        data = packed({"m.eml": inner})
    (tmp_path / "a.zip").write_bytes(data)
    documents = read(tmp_path)
    assert any("nested" in reason(d) for d in documents.values() if not d.text)


def test_the_file_of_a_document_inside_of_it_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "post"
    folder.mkdir()
    path = folder / "a.zip"
    path.write_bytes(packed({"m/mail.eml": LAMP}))
    for id_ in ("post/a.zip", "post/a.zip/m/mail.eml", "post/a.zip/b/x#y.csv#3"):
        assert file_of(tmp_path, id_) == path
    assert file_of(path, "a.zip/m/mail.eml") == path
    for id_ in (
        "post",
        "post/b.zip/a",
        "../x",
        "",
        "post/a.zip/../../../../etc/passwd",
    ):
        assert file_of(tmp_path, id_) in (None, path)
