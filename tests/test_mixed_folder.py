"""A folder with every format, damaged and hostile files included: each is read rightly, or waits."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from tasks.classify import classify
from tests.kit.mixed_folder import FILES
from tests.kit.projects import make_project, model
from tests.kit.reading import hide_text_recognition
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise import read_documents, recorded_run, write_documents
from tierwise.documents.readers.pages.recognizer import is_installed
from tierwise.documents.recognized import FOLDER

pytestmark = pytest.mark.skipif(
    not is_installed(), reason="the extra `ocr` is not installed"
)
RULES = "version: 1\nroutes: [{name: all, try: [small]}]\n"

# The text of each document that is read, by its id; … is a file's size and hash.
TEXTS = {
    "all.msg": (
        "Subject: Größe\n\nWo ist die Lampe?\n\n"
        "---------- Attached message ----------\nFrom: Ann Oak <ann@example.com>\n"
        "To: us@example.com\nDate: Mon, 18 Aug 2025 14:13:20 +0000\n"
        "Subject: Inner\n\nAn older letter.\n"
        "---------- End of attached message ----------\n\n"
        "Attachments: torn.txt (…), old.txt (…)"
    ),
    "all.msg/old.txt": "Older.",
    "all.msg/torn.txt": "It is torn.",
    "all.pptx": (
        "## Slide 1\n\n### Lamps\n\nCheap\nBright\n\nIn two groups\n\n"
        "Diagram: Order; Pay\n\nChart: Start; 12\n\nNotes:\nSpeak slowly.\n\n"
        "Comment: Too long\n\n## Slide 2 (hidden)\n\nLamp | 12\nSofa | 900\n\n"
        "Chart: Sales: May 240, June 260\n\nNot shown"
    ),
    "all.xlsx#Data": (
        "# Data\n\nMonth | Sales\n2026-01-01 | 1,200.50 €\n"
        "2026-02-01 | 2,401.00 €\n | 12.5%\n | #DIV/0!\n | saved\nMerged\n\n"
        "Comment in row 2: Ask Ann\nChart: Lamps sold; North: May 240, June 260\n"
        "Text box: A note in a box\nFooter: House of lamps"
    ),
    "all.xlsx#Old": "# Old\n\nAn old price",
    "all.xlsx#Share": "# Share\n\nChart: North: May 240, June 260",
    "all.zip/inner.zip/deep.txt": "The deep letter",
    "all.zip/letters/a.txt": "The lamp of order 7 is late.",
    "chart.ods#S": (
        "# S\n\nMonth | Sales\nMay | 240.00\n\n"
        "Chart: Lamps sold; North: May 240, June 260"
    ),
    "cyclic.msg": (
        "Subject: Order 7\n\nWhere is my lamp?\n\n"
        "Attachments: unnamed application/octet-stream (…)"
    ),
    "deep.eml": "Subject: Again\n\nSee the archive.\n\nAttachments: a.zip (…)",
    "deep.eml/a.zip/m.eml": (
        "Subject: Again\n\nSee the archive.\n\nAttachments: a.zip (…)"
    ),
    "deep.eml/a.zip/m.eml/a.zip/m.eml": (
        "Subject: Again\n\nSee the archive.\n\nAttachments: a.zip (…)"
    ),
    "deep.html": "Deep words",
    "encapsulated.msg": "Subject: Order 7\n\nFrom an HTML letter",
    "fax.tiff": "First page\fSecond page",
    "files.eml": (
        "Subject: Order 7\n\nThe lamp of order 7 is late.\n\n"
        "Attachments: rows.xlsx (…), ../../invoice.pdf (…), run.exe (…)"
    ),
    "files.eml/.._.._invoice.pdf": "The invoice of May",
    "files.eml/rows.xlsx#S!r1": "The lamp is late.",
    "files.eml/rows.xlsx#S!r2": "A chair",
    "html.msg": "Subject: Order 7\n\nFrom HTML",
    "letter.docx": (
        "# Offer\n\nWe deliver on Monday.\n\n|  |  |\n| --- | --- |\n| Lamp | 12 EUR |"
    ),
    "letter.odt": "We deliver on Monday.",
    "letter.rtf": "Dear Ann\nSee you",
    "macro.docm": "# Offer\n\nWe deliver on Monday.",
    "macro.xlsm#S!r1": "The lamp is late.",
    "macro.xlsm#S!r2": "A chair",
    "mixed.pdf": "A typed letter\n\n\fTotal 98.50",
    "nested.json#7": "The lamp of order 7 is late.",
    "nested.json#8": "Chair",
    "odd\\u202etxt.txt": "An odd name",
    "orders.xml#r1": "One",
    "orders.xml#r2": "Two",
    "page.html": "Hello **Ann**",
    "page.msg": "Subject: Лампа\n\nГде моя лампа?",
    "photo.jpg": "Invoice 4711",
    "photo.png": "Invoice 4711",
    "remote.docx": "# Offer\n\nWe deliver on Monday.",
    "rows.ods#S!r1": "The lamp is late.",
    "rows.ods#S!r2": "A chair",
    "rows.xlsx#S!r1": "The lamp is late.",
    "rows.xlsx#S!r2": "A chair",
    "rtf.msg": "Subject: Order 7\n\nFrom RTF",
    "scan.pdf": "Paid in cash",
    "slides.odp": "## Slide 1\n\nLamps\n\n## Slide 2\n\nChairs",
    "text.csv#r1": "The lamp is late.",
    "text.csv#r2": "=1+1",
    "text.jsonl#r1": "The lamp is late.",
    "text.md": "# Lamps",
    "text.txt": "The lamp of order 7 is late.",
    "typed.pdf": "The invoice of May",
    "wide.ods#S!2": "Wide",
}

# What each document that waits has in its reason, by its id.
WAITS = {
    "all.zip/_/out.txt": "pack it under another name",
    "all.zip/bomb.txt": "unpack it yourself",
    "all.zip/etc/passwd.txt": "pack it under another name",
    "all.zip/old.xls": "save it as .xlsx",
    "binary.txt": "give it the ending of its real format",
    "blank.png": "look at it, and write its text into a file",
    "blank.txt": "write its text into it, or ask for a new copy",
    "bomb.png": "save it smaller",
    "bomb.xlsx": "split it",
    "cut.docx": "ask for a new copy",
    "cut.json": "correct it",
    "cut.msg": "ask for a new copy",
    "cut.pdf": "ask for a new copy",
    "cut.png": "ask for a new copy",
    "cut.pptx": "ask for a new copy",
    "cut.xlsx": "ask for a new copy",
    "cut.zip": "ask for a new copy",
    "deep.eml/a.zip/m.eml/a.zip/m.eml/a.zip": "unpack it",
    "deep.json": "flatten it",
    "deep.xml": "flatten it",
    "deep.zip/a.zip/a.zip/a.zip/a.zip/a.zip": "unpack it",
    "empty.txt": "ask for a new copy",
    "files.eml/run.exe": "save it as .pdf, .docx, .xlsx or .txt",
    "locked.docx": "save a copy without a password",
    "locked.msg": "save a decrypted copy",
    "locked.pdf": "save a copy without a password",
    "locked.pptx": "save a copy without a password",
    "locked.xlsx": "save a copy without a password",
    "no ending": "save it as .pdf, .docx, .xlsx or .txt",
    "old.ppt": "save it as .pptx",
    "old.xls": "save it as .xlsx",
    "page.html.png": "save it again as .png or .jpg",
    "photo.heic": "save it as .jpg or .png",
    "post.7z": "unpack it, or pack it as .zip",
    "remote.html": "run text recognition",
    "remote.odt": "save it as .pdf",
    "slides.odt": "ask for a new copy",
    "text.jsonl#r2": "fill it in, or delete the row",
    "text.msg": "ask for a new copy",
    "text.rtf": "ask for a new copy",
    "text.zip": "ask for a new copy",
    "wide.xlsx": "ask for a new copy",
    "word.pptx": "ask for a new copy",
    "word.xlsx": "ask for a new copy",
    "xxe.docx": "save it again",
    "xxe.ods": "save it again",
    "xxe.xlsx": "save it again",
    "xxe.xml": "save it without them",
    "xxe16.xml": "save it without them",
}
# What documents that are read have lost, by their id.
LOST = {
    "cyclic.msg": "the attached file unnamed application/octet-stream",
    "wide.ods#S!2": "what repeats in row 1",
}


@pytest.fixture
def project(tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_project(tmp_path / "project", model("small", standin.url), rules=RULES)
    (root / "inbox").mkdir()
    for name, make in FILES.items():
        (root / "inbox" / name).write_bytes(make())
    monkeypatch.chdir(root)
    return root


def sort_letters() -> None:
    @flow(name="mixed")
    def mixed_flow(source: Path) -> None:
        with recorded_run():
            letters = read_documents(source, sensitivity="internal")
            done = classify.map(letters, labels=["order", "other"], descriptions={})
            write_documents(done, Path("out"))

    mixed_flow(Path("inbox"))


def plain(text: str) -> str:
    """A text without the sizes and hashes of files, which change with the date."""
    return re.sub(r"\(\d+ \w+, [0-9a-f]{12}\)", "(…)", text)


def results(project: Path) -> dict[str, dict[str, Any]]:
    lines = (project / "out" / "outcomes.jsonl").read_text().splitlines()
    return {line["id"]: line for line in map(json.loads, lines)}


def test_every_file_is_read_rightly_or_waits_with_a_remedy(
    prefect_server: str,
    project: Path,
    standin: Standin,
    terminal: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a run, in `check`, and once more without a repeated recognition of pages."""
    sort_letters()
    found = results(project)
    assert sorted(found) == sorted([*TEXTS, *WAITS])
    sent = {plain(request.document) for request in standin.requests}
    assert sent == {text.strip() for text in TEXTS.values()}
    for name in TEXTS:
        assert found[name]["outcomes"]["classify"]["status"] == "accepted", name
        assert found[name]["metadata"].get("incomplete") == LOST.get(name), name
    for name, remedy in WAITS.items():
        outcome = found[name]["outcomes"]["read"]
        assert (outcome["status"], outcome["cause"]) == ("deferred", "unreadable")
        assert remedy in outcome["reason"], name

    # Pages are recognized once: now the sandbox has no text recognition.
    hide_text_recognition(tmp_path / "hidden", monkeypatch)
    checked = terminal("check", "inbox", "--json", cwd=project)
    assert checked.code == 1
    data = json.loads(checked.out)
    assert (data["read"], data["in_part"]) == (len(TEXTS), len(LOST))
    waiting = {each["id"]: each["reason"] for each in data["remarks"] if each["waits"]}
    assert sorted(waiting) == sorted(WAITS)
    for name, remedy in WAITS.items():
        # of pictures without words nothing is kept: they ask for text recognition
        assert remedy in waiting[name] or name.endswith(".png"), name

    # What is kept is private, and goes with `tierwise retention`.
    kept = list((project / FOLDER).iterdir())
    assert kept
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert stat.S_IMODE((project / FOLDER).stat().st_mode) == 0o700
    forget = ("retention", "--document", "scan.pdf")
    dry = terminal(*forget, "--dry-run", "--json", cwd=project)
    assert json.loads(dry.out)["recognized_files"] == len(kept)
    assert terminal(*forget, cwd=project).code == 0
    assert not (project / FOLDER).exists()
    data = json.loads(terminal("check", "inbox", "--json", cwd=project).out)
    assert data["read"] == len(TEXTS) - len(kept)
