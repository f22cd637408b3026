"""Reading e-mail: all of its texts, and a list of what is not in them."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.kit.mails import (
    ENVELOPED,
    HEADERS,
    MarkedMail,
    attached,
    calendar,
    forwarded,
    marked_mails,
    message,
    multipart,
    part,
    plain_compressed_rtf,
    smime,
    winmail,
)
from tests.kit.office_files import pdf
from tests.kit.reading import read, reason
from tierwise.documents.readers.formats import extract
from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.settings import ReadingSettings, Request
from tierwise.errors import DocumentError
from tierwise.records import Document

# Attachments as documents of their own are in test_archives.py.
NAMES_ALONE = Request(".eml", settings=ReadingSettings(attachments="names"))
SUBJECT = "Subject: Order 7\n\n"
LAMP = "The lamp is late."
SOFA = "The sofa is torn."


def extracted(data: bytes) -> Extracted:
    """The content, with the line ends that documents have."""
    found = extract(data, NAMES_ALONE)
    text = found.text.replace("\r\n", "\n").strip()
    return Extracted(text, found.metadata, found.declared, found.unread)


def body(data: bytes) -> str:
    """The text without the subject."""
    return extracted(data).text.removeprefix(SUBJECT)


def read_all(folder: Path, **mails: bytes) -> dict[str, Document]:
    for name, data in mails.items():
        (folder / f"{name}.eml").write_bytes(data)
    return {
        name.removesuffix(".eml"): document
        for name, document in read(folder, settings=NAMES_ALONE.settings).items()
    }


# --- ordinary mails ------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "quoted-printable", "base64"])
@pytest.mark.parametrize(
    "text",
    [
        "Where is my order?\nIt is > 3 weeks late.\n\n  Indented,   and spaced.\n-- \nAnn",
        "begin 5 pm\nend of it",
        "--- \n-----\nFrom: nobody\n--\nAnn",
        "<html> is how my page begins, and my browser shows it",
    ],
)
def test_the_text_of_a_mail_of_one_plain_part_is_the_body_as_it_is(
    encoding: str, text: str
) -> None:
    found = extract(message(part(text, encoding=encoding)), ".eml")
    assert found.text == SUBJECT + text
    assert found.unread == ()


def test_a_plain_and_an_html_version_of_one_text_give_the_plain_one() -> None:
    plain = "*Dear desk,*\nthe sofa from order 5521 is torn <https://x.example/1>,\nsee shop:\n[cid:a.png]"
    html = (
        "<p><b>Dear desk,</b><br>the sofa from order&nbsp;5521 is torn,"
        "<p>see <a href='https://x.example/shop'>shop</a>: <img src='cid:a.png' alt='Photo'>"
    )
    data = message(multipart("alternative", part(plain), part(html, "text/html")))
    assert body(data) == plain


# --- versions that differ ------------------------------------------------------------------------

ORDER = (
    "Dear desk, the sofa from order 5521 is torn. I want my money back by 5 December."
)
STUBS = [
    "This message can only be shown by a program that reads HTML.",
    "Your mail program does not show HTML. Open the message in a browser: https://x.example/v",
    "View this message online: https://x.example/v?id=12345",
    "Ihr E-Mail-Programm kann diese Nachricht nicht anzeigen.",
    "Cliquez ici: https://x.example/v",
    "https://x.example/v",
    "[cid:image001.png]",
    " \n\u200b\n",
    "Dear desk,",
]


@pytest.mark.parametrize("stub", STUBS)
def test_the_html_text_is_taken_where_the_plain_one_is_a_placeholder(stub: str) -> None:
    html = part(f"<p>{ORDER}</p>", "text/html")
    data = message(multipart("alternative", part(stub), html))
    assert body(data) == ORDER


def test_a_placeholder_may_be_longer_than_the_html_text() -> None:
    html = part("<p>Please cancel my order 5521.</p>", "text/html", encoding="base64")
    data = message(multipart("alternative", part(STUBS[0]), html))
    assert body(data) == "Please cancel my order 5521."


@pytest.mark.parametrize(
    ("plain", "html", "expected"),
    [
        (
            f"{ORDER}\nPS: the key is 4711.",
            f"<p>{ORDER}",
            f"{ORDER}\nPS: the key is 4711.",
        ),
        (
            f"{ORDER}\nPS: the key is 4711.",
            f"<p>{ORDER}<p>Call 0170 5550101.",
            f"{ORDER}\nPS: the key is 4711.\n\nOnly in the HTML version of this message:\n"
            "Call 0170 5550101.",
        ),
        (
            "Order 4711",
            f"<p>{ORDER}",
            f"{ORDER}\n\nOnly in the plain text version of this message:\nOrder 4711",
        ),
        (
            "注文した品が\n届きません。",
            "<p>注文した品が届きません。",
            "注文した品が\n届きません。",
        ),
        ("Cancel it.", "<p><img src='cid:a' alt='Logo'>", "Cancel it."),
    ],
)
def test_no_version_loses_a_word_that_the_other_one_lacks(
    plain: str, html: str, expected: str
) -> None:
    for parts in (
        [part(plain), part(html, "text/html")],
        [part(html, "text/html"), part(plain)],
    ):
        assert body(message(multipart("alternative", *parts))) == expected


def test_a_page_of_pictures_alone_keeps_what_they_show() -> None:
    html = "<a href='https://x.example'><img alt='Chairs from 5 euros' src='https://x.example/a.png'></a>"
    assert "Chairs from 5 euros" in body(message(part(html, "text/html")))


def test_a_page_of_pictures_without_words_waits() -> None:
    html = "<a href='https://x.example'><img src='https://x.example/a.png'></a>"
    with pytest.raises(DocumentError, match="a picture in place of text"):
        extract(message(part(html, "text/html")), ".eml")
    found = extracted(message(part(f"Thanks, Ann {html}", "text/html")))
    assert found.text.startswith(f"{SUBJECT}Thanks, Ann")
    assert found.unread == ()


def test_a_frame_in_the_html_is_listed() -> None:
    html = f"<p>{LAMP}<iframe src='https://x.example/terms'></iframe>"
    assert extracted(message(part(html, "text/html"))).unread == (
        "the frame https://x.example/terms",
    )


def test_a_reply_with_a_quote_gives_the_plain_version_alone() -> None:
    """As Gmail and Outlook write them."""
    plain = (
        "Yes, it’s the well-\nknown one. *Ann*\n\n  1. red\n  2. blue\n\n________\n"
        "On Mon, Nov 23, 2026 at 9:00 AM Bob <bob@example.org<mailto:bob@example.org>> wrote:\n"
        "> Which_one? [cid:image001.png@01D9] 9–10 pieces & more\n"
    )
    html = (
        "<div>Yes, it's the well-known one. <b>Ann</b><ol><li>red<li>blue</ol><hr>"
        "On Mon, Nov 23, 2026 at 9:00&nbsp;AM Bob &lt;<a href='mailto:bob@example.org'>bob@example.org</a>"
        "&gt; wrote:<blockquote>Which_one? <img src='cid:image001.png@01D9' alt='A shelf'> "
        "9-10 pieces &amp; more&zwnj;</blockquote></div>"
    )
    versions = multipart("alternative", part(plain), part(html, "text/html"))
    assert body(message(versions)) == plain.strip()


# --- more than one text --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["mixed", "related", "signed", "report", "parallel", "x-new"]
)
def test_all_text_parts_are_read_in_their_order(kind: str) -> None:
    between = part(
        "<p>and <b>HTML</b>", "text/html", charset="utf-16", encoding="base64"
    )
    data = message(multipart(kind, part(LAMP), between, part(SOFA)))
    assert body(data) == f"{LAMP}\n\nand **HTML**\n\n{SOFA}"


def test_a_text_behind_an_attachment_is_read() -> None:
    """As Apple Mail writes them, also inside of alternatives."""
    file = attached(b"%PDF", "plan.pdf")
    mixed = multipart(
        "mixed",
        part("<p>See", "text/html"),
        file,
        part("<p>4711", "text/html"),
        boundary="m",
    )
    for data in (
        message(multipart("mixed", part("See"), file, part("4711"))),
        message(multipart("alternative", part("See"), mixed)),
    ):
        found = extracted(data)
        assert found.text.startswith(
            f"{SUBJECT}See\n\n4711\n\nAttachments: plan.pdf (4 bytes, "
        )
        assert found.unread == ("the attached file plan.pdf",)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (
            "text/enriched",
            "<bold>The lamp</bold> is\nlate.\n\n<< 3 weeks<nofill>",
            "The lamp is late.\n< 3 weeks",
        ),
        ("text/markdown", "# The lamp\n", "# The lamp"),
        ("text/csv", "a,b\n1,2\n", "a,b\n1,2"),
        ("text/x-unknown", LAMP, LAMP),
        ("application/xhtml+xml", f"<html><body><p>{LAMP}</p></body></html>", LAMP),
    ],
)
def test_other_kinds_of_text_are_read(kind: str, content: str, expected: str) -> None:
    assert body(message(part(content, kind))) == expected


@pytest.mark.parametrize(
    ("rtf", "expected"),
    [
        (
            rb"{\rtf1\ansi\ansicpg1252 Gr\'fc\'dfe, {\b the} lamp\par is \{late\}.}",
            "Grüße, the lamp\nis {late}.",
        ),
        (
            rb"{\rtf1{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial;}}\f1 \'cf\'f0\f0 !}",
            "Пр!",
        ),
        (
            rb"{\rtf1\uc1 5 \u8364? \u-10179?\u-8704? {\*\generator x}{\pict 00ff}ok}",
            "5 € 😀 ok",
        ),
        (rb"{\rtf1{\colortbl;\red0;}{\info{\title Hidden}}\bin3 {{{shown", "shown"),
    ],
)
@pytest.mark.parametrize("kind", ["text/rtf", "application/rtf"])
def test_rtf_is_read(kind: str, rtf: bytes, expected: str) -> None:
    assert body(message(part(rtf, kind, encoding="base64"))) == expected


@pytest.mark.parametrize(
    ("parameters", "text", "expected"),
    [
        (
            "format=flowed",
            "The lamp \nis late.\n\n> Why \n> so?\n>> Hm \n No.\n-- \nAnn",
            "The lamp is late.\n\n> Why so?\n>> Hm \nNo.\n-- \nAnn",
        ),
        ("format=flowed; delsp=yes", "The la \nmp is late.", "The lamp is late."),
        ("format=fixed", "The lamp \nis late.", "The lamp \nis late."),
    ],
)
def test_lines_that_a_mail_program_wrapped_are_joined(
    parameters: str, text: str, expected: str
) -> None:
    data = HEADERS + f"Content-Type: text/plain; {parameters}\r\n\r\n{text}".encode()
    assert body(data) == expected


# --- messages in messages ------------------------------------------------------------------------

ORIGINAL = message(
    part("You owe us 812 euros.", encoding="base64"),
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nSubject: Invoice 77\r\nSensitivity: Private\r\n"
    b"Date: Mon, 23 Nov 2026 09:00:00 +0100\r\n",
)
ORIGINAL_TEXT = (
    "---------- Attached message ----------\nFrom: Jürgen <j@example.org>\n"
    "Date: Mon, 23 Nov 2026 09:00:00 +0100\nSubject: Invoice 77\n\nYou owe us 812 euros.\n"
    "---------- End of attached message ----------"
)
ENCODED = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        message(multipart("mixed", part("FYI"), forwarded(ORIGINAL))),
        message(multipart("mixed", part("FYI"), ENCODED + base64.encodebytes(ORIGINAL))),
        message(multipart("mixed", part("FYI"), attached(ORIGINAL, "mail.eml", "application/octet-stream"))),
        message(multipart("mixed", part("FYI"), multipart("digest", b"\r\n" + ORIGINAL, boundary="d"))),
        message(multipart("report", part("FYI"), forwarded(ORIGINAL))),
    ],
)  # fmt: skip
def test_a_message_inside_a_message_is_read_with_its_headers(data: bytes) -> None:
    found = extracted(data)
    assert found.text == f"{SUBJECT}FYI\n\n{ORIGINAL_TEXT}"
    assert found.unread == ()
    assert found.declared == ("", "confidential")


@pytest.mark.parametrize(
    ("encoding", "original", "text"),
    [
        ("quoted-printable", "Subject: A=20b\r\n\r\nText =3D ok", "Subject: A b\n\nText = ok"),
        ("quoted-printable", "Subject: A\r\nContent-Transfer-Encoding: 7bit\r\n\r\na=3D1", "Subject: A\n\na=3D1"),
        ("base64", "Subject: A\r\n\r\nnot encoded", "Subject: A\n\nnot encoded"),
    ],
)  # fmt: skip
def test_a_message_in_a_transfer_encoding_is_read_where_it_is_in_one(
    encoding: str, original: str, text: str
) -> None:
    header = (
        f"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    assert text in body(message((header + original).encode()))


def test_a_forward_without_a_word_of_its_own_is_read() -> None:
    assert body(message(forwarded(ORIGINAL))) == ORIGINAL_TEXT
    inner = message(
        multipart("mixed", part(SOFA), attached(b"x", "plan.pdf"), boundary="i")
    )
    found = extracted(message(multipart("mixed", forwarded(message(forwarded(inner))))))
    assert SOFA in found.text
    assert found.unread == ("the attached file plan.pdf",)


def test_a_delivery_report_says_who_did_not_get_what() -> None:
    status = part(
        "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; bob@example.org\nStatus: 5.1.1",
        "message/delivery-status",
    )
    returned = part("Subject: Your invoice 4711\n", "text/rfc822-headers")
    data = message(
        multipart("report", part("It could not be delivered."), status, returned)
    )
    text = body(data)
    for words in ("It could not be", "bob@example.org\nStatus: 5.1.1", "invoice 4711"):
        assert words in text


def test_messages_nested_without_end_are_read_to_a_depth() -> None:
    data = message(part("the innermost"))
    for number in range(200):
        data = message(forwarded(data), f"Subject: level{200 - number}\r\n".encode())
    with pytest.raises(DocumentError, match="nested more than 50 levels deep"):
        extract(data, ".eml")
    found = extracted(message(multipart("mixed", part(LAMP), forwarded(data))))
    assert "level1\n" in found.text
    assert "level40" in found.text
    assert found.unread == ("a part nested more than 50 levels deep",)
    boundaries = b"".join(
        b"--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n" % (n, n + 1)
        for n in range(3000)
    )
    with pytest.raises(DocumentError, match="nested more than 50 levels deep"):
        extract(
            HEADERS + b"Content-Type: multipart/mixed; boundary=b0\n\n" + boundaries,
            ".eml",
        )


def test_a_mail_of_very_many_parts_says_that_it_is_not_all() -> None:
    found = extracted(
        message(multipart("mixed", *[part(f"w{n}") for n in range(6000)]))
    )
    assert "w4000" in found.text
    assert found.unread == ("the parts beyond the first 5,000",)


# --- invitations ---------------------------------------------------------------------------------

EVENT = """Calendar method: request

Calendar event:
Summary: Delivery of the tables
Start: 2026-12-01 09:00 Europe/Berlin
End: 2026-12-01 09:30 UTC
Where: Hall 3, gate B
Organizer: Marsh, Ann <ann@example.org>
Attendee: Desk <desk@example.com>
Description: Bring the key, and the papers of the old tables.
Gate B"""


def test_an_invitation_is_read_alone_beside_a_text_and_as_a_file() -> None:
    event = calendar(
        "Delivery of the tables",
        "Bring the key\\, and the papers of the old tables.\\nGate B",
    )
    invitation = part(event, "text/calendar", encoding="quoted-printable")
    assert body(message(invitation)) == EVENT
    versions = [part("Please come."), part("<p>Please come.", "text/html"), invitation]
    assert (
        body(message(multipart("alternative", *versions))) == f"Please come.\n\n{EVENT}"
    )
    file = attached(event.encode(), "invite.ics", "application/ics")
    found = extracted(message(multipart("mixed", file)))
    assert found.text.startswith(SUBJECT + EVENT)
    assert found.metadata["attachments"] == "invite.ics"
    assert found.unread == ()


@pytest.mark.parametrize(
    "text", ["BEGIN:VCALENDAR\nBEGIN:VEVENT", 'SUMMARY;X="a:Lost', "no calendar"]
)
def test_a_calendar_that_is_none_stays_as_it_is(text: str) -> None:
    assert body(message(part(text, "text/calendar"))) == text


# --- attachments ---------------------------------------------------------------------------------


def scan(number: int) -> bytes:
    """A scanner's mail, whose body is the file."""
    return message(attached(pdf(f"Letter {number}"), f"doc{number}.pdf"))


def test_a_scanners_mails_wait_and_say_where_their_text_is(tmp_path: Path) -> None:
    documents = read_all(
        tmp_path,
        one=scan(1),
        two=message(multipart("mixed", part(" \r\n"), attached(b"%PDF", "doc2.pdf"))),
        html=message(
            multipart(
                "mixed",
                part("<body><br>&nbsp;<img src='cid:a'></body>", "text/html"),
                attached(b"II*", "doc3.tif", "image/tiff"),
                attached(b"%PDF", "doc4.pdf"),
            )
        ),
        forward=message(multipart("mixed", part(""), forwarded(scan(7)))),
        unnamed=message(part(b"%PDF", "application/pdf", encoding="base64")),
        photo=message(
            part(
                b"\xff\xd8",
                "image/jpeg",
                encoding="base64",
                headers=["Content-Disposition: inline; filename=a.jpg"],
            )
        ),
    )
    assert {name: reason(document) for name, document in documents.items()} == {
        "one": "its text is in doc1.pdf: save that",
        "two": "its text is in doc2.pdf: save that",
        "html": "its text is in doc3.tif, doc4.pdf: save those",
        "forward": "its text is in doc7.pdf: save that",
        "unnamed": "its text is in unnamed application/pdf: save that",
        "photo": "its text is in a.jpg: save that",
    }


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("letter.txt", "text/plain", SOFA),
        ("letter.txt", "application/octet-stream", SOFA),
        ("letter.html", "text/html", f"<p>{SOFA}"),
    ],
)
def test_a_text_attachment_is_read_where_the_mail_has_no_other_text(
    name: str, kind: str, content: str
) -> None:
    file = attached(content.encode(), name, kind)
    for data in (message(file), message(multipart("mixed", part(""), file))):
        found = extracted(data)
        assert found.text.startswith(f"{SUBJECT}{SOFA}\n\nAttachments: {name} (")
        assert found.unread == ()
    found = extracted(message(multipart("mixed", part(LAMP), file)))
    assert SOFA not in found.text
    assert found.unread == (f"the attached file {name}",)


def test_mails_that_differ_in_an_attachment_alone_are_no_duplicates(
    tmp_path: Path,
) -> None:
    def with_file(content: bytes, name: str = "invoice.pdf") -> bytes:
        return message(
            multipart("mixed", part("See the invoice."), attached(content, name))
        )

    documents = read_all(
        tmp_path,
        a=with_file(b"one"),
        b=with_file(b"two"),
        c=with_file(b"one", "other.pdf"),
        d=with_file(b"one"),
        e=message(part("See the invoice.")),
    )
    marks = {
        name: document.metadata.get("duplicate_of")
        for name, document in documents.items()
    }
    assert marks == {"a": None, "b": None, "c": None, "d": "a.eml", "e": None}
    assert documents["a"].text.startswith(
        SUBJECT + "See the invoice.\n\nAttachments: invoice.pdf (3 bytes, "
    )
    assert documents["a"].metadata["attachments"] == "invoice.pdf"
    assert documents["a"].metadata["incomplete"] == "the attached file invoice.pdf"


def test_small_pictures_of_the_layout_are_listed_and_not_missed() -> None:
    def picture(size: int, *headers: str) -> bytes:
        return part(
            b"\x89" * size,
            "image/png; name=logo.png",
            encoding="base64",
            headers=headers,
        )

    html = part(f"<p>{LAMP}<img src='cid:logo'>", "text/html")
    for headers, size, unread in (
        (["Content-ID: <logo>"], 2000, ()),
        (["Content-Disposition: inline"], 2000, ()),
        (["Content-ID: <logo>"], 60_000, ("the attached file logo.png",)),
        (["Content-Disposition: attachment"], 2000, ("the attached file logo.png",)),
    ):
        found = extracted(message(multipart("related", html, picture(size, *headers))))
        assert f"Attachments: logo.png ({size // 1000} kB, " in found.text
        assert found.unread == unread


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('filename="=?utf-8?B?R3LDtsOfZS5wZGY=?="', "Größe.pdf"),
        ("filename==?utf-8?Q?Gr=C3=B6=C3=9Fe=2Epdf?=", "Größe.pdf"),
        ('filename="=?utf-8?B?R3LD?= =?utf-8?B?tsOfZS5wZGY=?="', "Größe.pdf"),
        ("filename*=iso-8859-1'de'Gr%F6%DFe.pdf", "Größe.pdf"),
        (
            "filename*0*=utf-8''Gr%C3%B6;\r\n filename*1*=%C3%9Fe; filename*2=.pdf",
            "Größe.pdf",
        ),
        ('filename="Größe\r\n 2.pdf"', "Größe 2.pdf"),
        ("filename=my scan (1).pdf", "my scan (1).pdf"),
        ('filename="a\\"b;c.pdf"', 'a"b;c.pdf'),
        ('filename="inv\u202efdp.exe"', "invfdp.exe"),
        ("filename=", "unnamed application/pdf"),
        (f"filename={'x' * 500}.pdf", f"{'x' * 84}…{'x' * 11}.pdf"),
    ],
)
def test_an_attachments_name_is_decoded_and_fit_to_be_shown(
    header: str, name: str
) -> None:
    file = part(
        b"%PDF",
        "application/pdf",
        headers=[f"Content-Disposition: attachment; {header}"],
    )
    found = extracted(message(multipart("mixed", part(LAMP), file)))
    assert found.metadata["attachments"] == name
    assert f"Attachments: {name} (4 bytes" in found.text


def test_an_attachment_that_only_its_type_names_takes_the_name_of_its_type() -> None:
    file = part(b"%PDF", 'application/pdf; name="=?utf-8?q?=C3=A4.pdf?="')
    assert (
        extracted(message(multipart("mixed", part(LAMP), file))).metadata["attachments"]
        == "ä.pdf"
    )


def test_a_great_many_attachments_are_counted_and_still_tell_mails_apart() -> None:
    def many(last: bytes) -> Extracted:
        files = [attached(b"x", f"f{number}.pdf") for number in range(300)]
        return extracted(
            message(multipart("mixed", part(LAMP), *files, attached(last, "z.pdf")))
        )

    found = many(b"1")
    assert "and 201 more (" in found.text
    assert found.text != many(b"2").text
    assert len(found.unread) == 21
    assert found.unread[-1] == "281 more parts"


def uuencoded(content: bytes, name: str) -> str:
    lines = [
        binascii.b2a_uu(content[start : start + 45]).decode()
        for start in range(0, len(content), 45)
    ]
    return f"begin 644 {name}\n{''.join(lines)}`\nend\n"


def test_a_uuencoded_file_in_the_text_is_an_attachment() -> None:
    found = extracted(
        message(part(f"See this:\n{uuencoded(b'%PDF' * 40, 'plan.pdf')}Ann"))
    )
    assert found.text.startswith(
        f"{SUBJECT}See this:\nAnn\n\nAttachments: plan.pdf (160 bytes, "
    )
    assert found.unread == ("the attached file plan.pdf",)
    with pytest.raises(DocumentError, match=r"its text is in a\.pdf: save that"):
        extract(message(part(uuencoded(b"x", "a.pdf"))), NAMES_ALONE)


@pytest.mark.parametrize(
    "text", ["begin 644 a.pdf\nnot uuencoded\nend", "begin 644 a.pdf\n#0V%T\n"]
)
def test_a_uuencoded_file_that_is_none_stays_text(text: str) -> None:
    assert body(message(part(text))) == text.strip()


# --- winmail.dat ---------------------------------------------------------------------------------

RTF = rb"{\rtf1\ansi The lamp\par is \'fcberf\'e4llig.}"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (winmail(body=LAMP.encode()), LAMP),
        (
            winmail(properties={0x1000: (0x1F, LAMP.encode("utf-16-le") + b"\0\0")}),
            LAMP,
        ),
        (
            winmail(properties={0x1000: (0x1E, "Grüße".encode("cp1252") + b"\0")}),
            "Grüße",
        ),
        (winmail(properties={0x1013: (0x102, f"<p>{LAMP}".encode())}), LAMP),
        (
            winmail(properties={0x1009: (0x102, plain_compressed_rtf(RTF))}),
            "The lamp\nis überfällig.",
        ),
    ],
)
def test_outlooks_winmail_dat_is_read(content: bytes, text: str) -> None:
    file = attached(content, "winmail.dat", "application/ms-tnef")
    found = extracted(message(multipart("mixed", part("\r\n"), file)))
    assert found.text.startswith(f"{SUBJECT}{text}\n\nAttachments: winmail.dat (")
    assert found.unread == ()


def test_compressed_rtf_repeats_what_was_written() -> None:
    """The example of [MS-OXRTFCP], 3.1."""
    packed = bytes.fromhex(
        "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
    )
    file = attached(
        winmail(properties={0x1009: (0x102, packed)}), "a.dat", "application/ms-tnef"
    )
    assert body(message(file)).startswith("hello world\n\nAttachments:")


def test_the_files_in_winmail_dat_are_named_and_its_text_is_not_repeated() -> None:
    content = winmail(
        body=LAMP.encode(), files=[("plan.pdf", b"%PDF"), ("foto.jpg", b"x")]
    )
    file = attached(content, "winmail.dat", "application/octet-stream")
    found = extracted(message(multipart("mixed", part(LAMP), file)))
    assert found.text.startswith(f"{SUBJECT}{LAMP}\n\nAttachments: plan.pdf (4 bytes, ")
    assert found.unread == ("the attached file plan.pdf", "the attached file foto.jpg")


@pytest.mark.parametrize(
    "content",
    [
        b"x\x9f>" * 20,
        b"",
        winmail(body=b"")[:9],
        winmail(files=[("a", b"x" * 99)])[:-60],
    ],
)
def test_a_winmail_dat_that_cannot_be_read_waits_or_is_listed(content: bytes) -> None:
    file = attached(content, "winmail.dat", "application/ms-tnef")
    found = extracted(message(multipart("mixed", part(LAMP), file)))
    assert "the attached file winmail.dat" in found.unread
    with pytest.raises(DocumentError, match=r"its text is in"):
        extract(message(file), NAMES_ALONE)


# --- encrypted and signed ------------------------------------------------------------------------

PGP = "-----BEGIN PGP MESSAGE-----\n\nhQEMA1234567890\n=abcd\n-----END PGP MESSAGE-----"
PGP_MIME = multipart(
    "encrypted",
    part("Version: 1", "application/pgp-encrypted"),
    part(PGP.encode(), "application/octet-stream"),
)
OPAQUE = "application/pkcs7-mime; name=smime.p7m"


@pytest.mark.parametrize(
    ("data", "how"),
    [
        (part(PGP), "PGP"),
        (part(f"\n{PGP[:60]}"), "PGP"),
        (part(f"<p>{PGP}</p>", "text/html"), "PGP"),
        (multipart("alternative", part(PGP), part(f"<p>{PGP}</p>", "text/html")), "PGP"),
        (PGP_MIME, "PGP"),
        (PGP_MIME.replace(b"multipart/encrypted", b"multipart/mixed"), "PGP"),
        (multipart("mixed", part(""), attached(PGP.encode(), "a.asc", "application/x-asc")), "a.asc"),
        (part(smime(b"x", ENVELOPED), f"{OPAQUE}; smime-type=enveloped-data", encoding="base64"), "S/MIME"),
        (part(smime(b"x", ENVELOPED, streamed=True), "application/x-pkcs7-mime", encoding="base64"), "S/MIME"),
        (part(b"junk", OPAQUE, encoding="base64"), "S/MIME"),
        (attached(smime(b"x", ENVELOPED), "smime.p7m", "application/octet-stream"), "S/MIME"),
    ],
)  # fmt: skip
def test_an_encrypted_mail_waits_and_says_what_to_do(data: bytes, how: str) -> None:
    with pytest.raises(DocumentError) as raised:
        extract(message(data), ".eml")
    assert (
        str(raised.value) == f"the e-mail is encrypted ({how}); save a decrypted copy"
    )


def test_a_mail_with_an_encrypted_block_waits_unless_a_setting_says_otherwise(
    tmp_path: Path,
) -> None:
    block = message(part(f"{LAMP}\n\n{PGP}\n\nAnn"))
    footer = multipart("mixed", PGP_MIME.replace(b"b0", b"b1"), part("The list"))
    documents = read_all(tmp_path, block=block, footer=message(footer))
    assert reason(documents["block"]).startswith(
        "a block encrypted with PGP: save a decrypted copy, or set incomplete"
    )
    assert reason(documents["footer"]).startswith("an encrypted part: save")
    document = read(tmp_path, incomplete="accept")["block.eml"]
    assert document.text.startswith(f"{SUBJECT}{LAMP}\n\n\n\nAnn\n\nAttachments: PGP (")
    assert document.metadata["incomplete"] == "a block encrypted with PGP"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", [f"{OPAQUE}; smime-type=signed-data", OPAQUE])
def test_signed_mails_are_read(kind: str, streamed: bool) -> None:
    inner = multipart("mixed", part(LAMP * 9), attached(b"x", "plan.pdf"), boundary="s")
    opaque = part(smime(inner, streamed=streamed), kind, encoding="base64")
    found = extracted(message(opaque))
    assert found.text.startswith(f"{SUBJECT}{LAMP * 9}\n\nAttachments: plan.pdf")
    assert found.unread == ("the attached file plan.pdf",)


def test_a_signature_is_no_attachment_that_is_missed() -> None:
    signature = attached(b"\x30\x80", "smime.p7s", "application/pkcs7-signature")
    found = extracted(message(multipart("signed", part(LAMP), signature)))
    assert found.text == SUBJECT + LAMP
    assert found.metadata["attachments"] == "smime.p7s"
    assert found.unread == ()


@pytest.mark.parametrize(
    "content",
    [base64.b64decode("MIAGCSqGSIb3DQEHAqCAMIACAQExAA=="), smime(b"x" * 90)[:40], b""],
)
def test_a_signed_mail_that_cannot_be_taken_out_is_not_called_encrypted(
    content: bytes,
) -> None:
    with pytest.raises(DocumentError) as raised:
        extract(
            message(
                part(content, f"{OPAQUE}; smime-type=signed-data", encoding="base64")
            ),
            ".eml",
        )
    assert "signed, not encrypted" in str(raised.value)
    assert "save a copy without the signature" in str(raised.value)


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "boundary"),
    [("y", "x"), ("", "x"), ("=_a", "----=_Part_1.2"), ("a b", "a")],
)
def test_parts_are_found_between_wrong_boundaries(named: str, boundary: str) -> None:
    data = message(
        multipart(
            "mixed",
            part(LAMP),
            attached(b"x", "plan.pdf"),
            part(SOFA),
            boundary=boundary,
            named=named,
        )
    )
    found = extracted(data)
    assert found.text.startswith(f"{SUBJECT}{LAMP}\n\n{SOFA}\n\nAttachments: plan.pdf")
    assert "Content-Type" not in found.text


def test_parts_without_any_header_above_them_are_found() -> None:
    parts = multipart("mixed", part(LAMP), part(SOFA)).partition(b"\r\n\r\n")[2]
    assert body(HEADERS + b"\r\n" + parts) == f"{LAMP}\n\n{SOFA}"


def test_a_multipart_without_parts_is_text() -> None:
    data = (
        HEADERS + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + LAMP.encode()
    )
    assert body(data) == LAMP


def test_a_mail_without_its_closing_boundary_may_be_cut_off() -> None:
    for kind in ("mixed", "alternative"):
        found = extracted(message(multipart(kind, part(LAMP), part(LAMP), end="")))
        assert LAMP in found.text
        assert found.unread == (
            "what came after its end, as its closing boundary is missing",
        )
    inner = multipart("mixed", part(LAMP), boundary="i", end="")
    assert extracted(message(multipart("mixed", inner, part(SOFA)))).unread == ()


def test_texts_outside_of_the_parts_are_read() -> None:
    data = (
        message(multipart("mixed", part(LAMP))) + b"\r\n____\r\nThe list's footer\r\n"
    )
    assert body(data) == f"{LAMP}\n\n____\nThe list's footer"
    note = b"\r\n\r\nThis is a multi-part message in MIME format.\r\n--b0\r\n"
    assert (
        body(message(multipart("mixed", part(LAMP))).replace(b"\r\n\r\n--b0\r\n", note))
        == LAMP
    )
    words = b"\r\n\r\nThe key is 4711.\r\n--b0\r\n"
    assert body(
        message(multipart("mixed", part(LAMP))).replace(b"\r\n\r\n--b0\r\n", words)
    ).startswith("The key is 4711.")


LONG = "\n".join(f"Line {number} of the letter, with Größe." for number in range(40))


def in_base64(text: bytes) -> bytes:
    return HEADERS + b"Content-Transfer-Encoding: base64\r\n\r\n" + text


def test_base64_is_read_as_far_as_it_goes() -> None:
    lines = base64.encodebytes(LONG.encode()).splitlines(keepends=True)
    assert (
        body(in_base64(b"".join(lines) + b"_____\nThe list's footer\n"))
        == f"{LONG}\n\n_____\nThe list's footer"
    )
    found = extracted(
        in_base64(b"".join([*lines[:3], b"!" + lines[3][1:], *lines[4:]]))
    )
    assert "Line 0 of" in found.text
    assert "Line 39 of" in found.text
    assert found.unread == ("pieces of a damaged part of the type text/plain",)
    cut = extracted(in_base64(b"".join(lines[:-3]) + lines[-3][:9]))
    assert "Line 30 of" in cut.text
    assert cut.unread == ("pieces of a damaged part of the type text/plain",)
    assert (
        body(in_base64(b"Hello there, the lamp is late.\n"))
        == "Hello there, the lamp is late."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"The lamp =\r\nis late=2E", "The lamp is late."),
        (b"50 =% off, a=b, Gr=C3=B6=C3=9Fe, =", "50 =% off, a=b, Größe,"),
        (b"Gr=F6=DFe", "Größe"),
    ],
)
def test_quoted_printable_is_read_as_far_as_it_goes(text: bytes, expected: str) -> None:
    assert (
        body(
            HEADERS
            + b"Content-Transfer-Encoding: QUOTED-PRINTABLE (rfc)\r\n\r\n"
            + text
        )
        == expected
    )


def test_a_text_with_a_stray_zero_is_read() -> None:
    assert body(message(part(b"The lamp\0 is late.", "text/plain"))) == LAMP


def test_a_text_in_no_known_encoding_waits_or_is_listed() -> None:
    bad = part(b"\0\1\2\3\0", "text/plain", encoding="base64")
    with pytest.raises(
        DocumentError, match="its text cannot be read: a part of the type text/plain: "
    ):
        extract(message(bad), ".eml")
    found = extracted(message(multipart("mixed", bad, part(LAMP))))
    assert LAMP in found.text
    assert "a part of the type text/plain: it holds binary data" in found.unread[0]


# --- as saved by editors and mailboxes -----------------------------------------------------------

GREETING = (
    "Subject: Größe\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\nGrüße: 5 €"
)


@pytest.mark.parametrize(
    "data",
    [
        GREETING.encode("utf-8-sig"),
        b"\r\n \r\n\n" + GREETING.encode("cp1252"),
        GREETING.encode("utf-16"),
        GREETING.encode("utf-16-le"),
        GREETING.encode("utf-16-be"),
        GREETING.encode("utf-32"),
        b"From ann@example.org Mon Nov 23 09:00:00 2026\r\n"
        + GREETING.encode("cp1252"),
        b"\n\n>From ann@example.org Mon Nov 23 09:00:00 2026\n"
        + GREETING.encode("cp1252"),
        GREETING.encode("cp1252").replace(b"\r\n", b"\r"),
        GREETING.encode("cp1252").replace(b"\r\n", b"\r\r\n"),
        GREETING.encode("cp1252").replace(b"\r\n\r\n", b"\r\n \r\n\r\n"),
    ],
)
def test_what_an_editor_or_a_mailbox_put_before_the_headers_is_skipped(
    data: bytes,
) -> None:
    assert extracted(data).text == "Subject: Größe\n\nGrüße: 5 €"


def test_the_messages_of_a_mailbox_are_all_read() -> None:
    line = b"From ann@example.org Mon Nov 23 09:00:00 2026\r\n"
    data = line + message(part(LAMP)) + b"\r\n\r\n" + line + ORIGINAL
    assert body(data) == f"{LAMP}\n\n{ORIGINAL_TEXT}"


@pytest.mark.parametrize(
    ("header", "subject"),
    [
        ("=?utf-8?B?R3LD?= =?utf-8?B?tsOfZQ==?=", "Größe"),
        ("=?utf-8?q?a?=\r\n =?iso-8859-1?q?=E4?= b", "aä b"),
        ("=?x-unknown?q?Gr=C3=B6=C3=9Fe?=", "Größe"),
        ("=?utf-8?q?Gr=C3=B6=C3=9Fe und so?=", "Größe und so"),
        ("=?utf-8?B?R3LDtsOfZQ?=", "Größe"),
        ("The lamp\r\n is\r\n\tlate", "The lamp is late"),
    ],
)
def test_a_subject_is_decoded(header: str, subject: str) -> None:
    assert (
        extracted(f"Subject: {header}\r\n\r\nx".encode()).metadata["subject"] == subject
    )


def test_headers_of_great_length_are_cut() -> None:
    data = (
        b"Subject: x\r\nTo: "
        + b"a@example.org, " * 100_000
        + b"\r\nContent-Type: text/plain; "
    )
    assert body(
        data + b"a=" * 100_000 + b'"; b="' * 100_000 + b"\r\n\r\nHello"
    ).endswith("Hello")


# --- any mail ------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(marked_mails())
def test_every_part_is_in_the_text_or_in_the_list_of_what_was_not_read(
    sample: MarkedMail,
) -> None:
    if not sample.markers and sample.attached:
        with pytest.raises(DocumentError) as raised:
            extract(sample.data, NAMES_ALONE)
        assert all(name in str(raised.value) for name in list(sample.attached)[:5])
        return
    found = extract(sample.data, NAMES_ALONE)
    markers = [*sample.markers, *sample.subjects]
    assert [marker for marker in markers if marker not in found.text] == []
    listed = "; ".join(found.unread)
    for name, word in sample.attached.items():
        assert name in found.text
        assert word in found.text or name in listed
