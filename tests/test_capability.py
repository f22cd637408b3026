"""The capability benchmark, with stand-ins for its models: what it prints is what it measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks.capability import main
from tests.kit.standin import Fault, Request, Standin

INTENTS = [
    f"lost_{thing}"
    for thing in (
        "card",
        "pin",
        "phone",
        "cheque",
        "key",
        "code",
        "app",
        "bill",
        "loan",
        "fee",
    )
]
RECEIPT = {
    "company": "Blue Heron",
    "date": "25/12/2018",
    "address": "9 Weir Street",
    "total": "9.00",
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Public data in miniature: 100 messages with ten intents, 30 receipts."""
    for name in ("banking77", "sroie"):
        (tmp_path / "data" / name).mkdir(parents=True)
    with (tmp_path / "data" / "banking77" / "messages.csv").open(
        "w", newline=""
    ) as file:
        rows = csv.writer(file)
        rows.writerow(["text", "intent"])
        rows.writerows(
            [f"Where is my {intent[5:]}, case {n}?", intent]
            for n in range(10)
            for intent in INTENTS
        )
    with (tmp_path / "data" / "sroie" / "receipts.jsonl").open("w") as lines:
        for n in range(30):
            text = f"BLUE HERON\n9 WEIR STREET\n25-12-2018\nno {n}\nTOTAL RM 9.00"
            lines.write(
                json.dumps({"id": f"{n}", "text": text, "gold": RECEIPT}) + "\n"
            )
    return tmp_path / "data"


def reads(request: Request) -> str:
    if "BLUE HERON" in request.document:
        return json.dumps({**RECEIPT, "date": "25-12-2018", "total": "RM 9.00"})
    return json.dumps(
        {"label": f"lost {request.document.partition('my ')[2].partition(',')[0]}"}
    )


def guesses(request: Request) -> Fault:
    """Right with cards and receipts' shops only."""
    if "BLUE HERON" in request.document:
        return Fault(text=json.dumps({**RECEIPT, "total": "1.00"}), probability=0.5)
    return Fault(text=json.dumps({"label": "lost card"}), probability=0.5)


def run(data: Path, small: Standin, large: Standin, *words: str) -> list[list[str]]:
    """The rows of the tables that it printed."""
    out = data.parent / "table.md"
    servers = [
        f"--server=qwen-0.5b={small.url}/v1",
        f"--server=qwen-1.5b={large.url}/v1",
    ]
    main(
        [
            "--data",
            str(data),
            "--project",
            str(data.parent / "projects"),
            "--out",
            str(out),
            *servers,
            *words,
        ]
    )
    lines = out.read_text().splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")] if "|" in line else [line]
        for line in lines
    ]


def asked(server: Standin) -> int:
    """How many answers it gave."""
    return sum("messages" in request.body for request in server.requests)


def picks(rows: list[list[str]]) -> list[str]:
    """What the router picked, at the floors that were tried."""
    return [
        row[0].partition(": ")[2].split()[0] for row in rows if ", floor 0." in row[0]
    ]


def test_it_certifies_every_candidate_and_says_what_the_router_picks(
    data: Path,
) -> None:
    with Standin() as small, Standin() as large:
        small.answer(guesses)
        large.answer(reads)
        rows = run(
            data,
            small,
            large,
            "--sets",
            "banking10",
            "--items",
            "40",
            "--machine",
            "a test",
        )
        table = {row[1]: row for row in rows if row[0] == "banking10"}
        assert set(table) >= {
            "learned",
            "qwen-0.5b",
            "qwen-0.5b-nearest",
            "qwen-1.5b",
            "qwen-1.5b-nearest",
        }
        assert table["qwen-1.5b"][2:4] == ["40", "1.000"]
        assert float(table["qwen-0.5b"][3]) < 0.3
        assert table["qwen-1.5b"][8] == "a test"
        assert picks(rows) == [
            "qwen-0.5b"
        ]  # at the low floor; nothing tells the two good ones apart
        assert asked(small) + asked(large) == 4 * 40
        assert any(
            len(request.body.get("messages", ())) == 18 for request in large.requests
        )  # eight nearest examples

        run(
            data,
            small,
            large,
            "--sets",
            "banking10",
            "--items",
            "40",
            "--machine",
            "a test",
        )
        assert asked(small) + asked(large) == 4 * 40


def test_it_says_which_fields_of_receipts_are_right(data: Path) -> None:
    """A date and an amount may be written in other ways."""
    with Standin() as small, Standin() as large:
        small.answer(guesses)
        large.answer(reads)
        models = ("--models", "qwen-0.5b", "--models", "qwen-1.5b")
        rows = run(data, small, large, "--sets", "sroie", "--items", "20", *models)
    assert ["qwen-0.5b", "1.000", "1.000", "1.000", "0.000"] in rows
    assert ["qwen-1.5b", "1.000", "1.000", "1.000", "1.000"] in rows
    assert picks(rows) == ["qwen-1.5b"]
