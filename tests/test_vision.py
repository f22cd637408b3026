"""Models that see: the pages' images on both lanes, and as one more candidate of a route."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.kit.calls import CALL, ask, catalog_at
from tests.kit.mixed_folder import zipped
from tests.kit.office_files import mail, pdf
from tests.kit.page_pictures import encoded, page
from tests.kit.pdf_files import PdfFile
from tests.kit.projects import make_project, model
from tests.kit.reading import read
from tests.kit.standin import Request, Standin
from tests.kit.steps import CLASSIFY, GOOD, INVENTED, LABELS, TEXT, kinds
from tierwise.cascade import RunContext
from tierwise.documents.spool import Spool
from tierwise.engine import Engine
from tierwise.policy.catalog import Model
from tierwise.policy.image_tokens import (
    LARGEST_SIDE,
    SHOWN_PIXELS,
    image_tokens,
    most_image_tokens,
)
from tierwise.project import Project
from tierwise.records import Batch, Document, Message, Outcome, PageImage, Sensitivity
from tierwise.steps.examples import load_golden

SEEING = replace(CLASSIFY, sees_pages=True)
RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
routes:
  - {name: default, try: [small, eyes]}
"""


def images_in(request: Request) -> list[bytes]:
    """The images of a request in OpenAI's or Anthropic's format, as bytes."""
    found = []
    for message in request.body["messages"]:
        content = message["content"]
        for part in content if isinstance(content, list) else ():
            if part["type"] == "image_url":
                head, _, data = part["image_url"]["url"].partition(",")
                assert head == "data:image/jpeg;base64"
                found.append(base64.b64decode(data))
            elif part["type"] == "image":
                assert part["source"]["media_type"] == "image/jpeg"
                found.append(base64.b64decode(part["source"]["data"]))
    return found


# ---- the two formats on both lanes --------------------------------------------------------------


@pytest.mark.parametrize("name", ["openai", "openai-litellm", "anthropic"])
def test_images_go_before_the_question_as_they_are(name: str) -> None:
    pictures = [encoded(page("one"), "JPEG"), encoded(page("two"), "JPEG")]
    images = tuple(
        PageImage(hashlib.sha256(data).hexdigest(), 900, 500, "image/jpeg", data)
        for data in pictures
    )
    system, question = CALL.messages
    call = replace(
        CALL, model=name, messages=(system, replace(question, images=images))
    )
    with Standin() as standin:
        [reply] = ask(catalog_at(standin.url, vision=True), call)
        request = standin.last
    assert reply.text
    assert images_in(request) == pictures
    [asked] = [m for m in request.body["messages"] if m["role"] == "user"]
    assert [part["type"] for part in asked["content"]][-1] == "text"
    assert question.content in json.dumps(asked["content"], ensure_ascii=False).replace(
        "\\n", "\n"
    ).replace('\\"', '"')


def test_the_hash_of_a_call_covers_its_images_and_stays_without_them() -> None:
    image = PageImage("a" * 64, 9, 9, "image/jpeg", b"x")
    [system, question] = CALL.messages
    seeing = replace(CALL, messages=(system, replace(question, images=(image,))))
    other = replace(image, sha256="b" * 64)
    another = replace(CALL, messages=(system, replace(question, images=(other,))))
    assert len({CALL.hash, seeing.hash, another.hash}) == 3
    again = replace(CALL, messages=(system, Message("user", question.content)))
    assert again.hash == CALL.hash


# ---- tokens -------------------------------------------------------------------------------------


# Of the providers' pages: (model, width, height, tokens). docs/documents.md names the pages.
BILLED = [
    ("openai/gpt-5.4", 1024, 1024, 1229),
    ("openai/gpt-6-astra", 1280, 720, 1104),
    ("openai/gpt-5.4-mini", 1024, 1024, 1229),
    ("openai/gpt-5-nano", 1024, 1024, 1536),
    ("openai/gpt-4.1-mini", 1024, 1024, 1659),
    ("openai/gpt-4.1-nano", 1024, 1024, 2520),
    ("openai/o4-mini", 1024, 1024, 1762),
    ("openai/gpt-4o", 1024, 1024, 765),
    ("openai/gpt-4o-mini", 1024, 1024, 25501),
    ("openai/gpt-5.1", 1568, 733, 70 + 8 * 140),
    ("openai/o3", 1024, 1024, 75 + 4 * 150),
    ("anthropic/claude-opus-5-5", 1000, 1000, 1296),
    ("anthropic/claude-haiku-4-5", 1092, 1092, 1521),
    ("gemini/gemini-3.5-flash", 1000, 1100, 1120),
    ("gemini/gemini-2.5-pro", 1000, 1100, 256 + 2048),
    ("mistral/pixtral-12b", 720, 512, 1440),
    ("mistral/mistral-medium", 720, 512, 471),
    ("together_ai/Llama-Vision", 1000, 1000, 6404),
]
# The same models by another way: (a name, the name of the same model at its maker).
ELSEWHERE = [
    ("gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini"),
    ("azure/gpt-4o-mini", "openai/gpt-4o-mini"),
    ("azure/a-name-of-ours", "openai/gpt-4o-mini"),
    ("openrouter/openai/gpt-5.6-sol", "openai/gpt-5.6-sol"),
    ("bedrock/us.anthropic.claude-sonnet-5-v1:0", "anthropic/claude-sonnet-5"),
    ("vertex_ai/claude-opus-5@20260701", "anthropic/claude-opus-5"),
    ("vertex_ai/gemini-2.5-pro", "gemini/gemini-2.5-pro"),
    ("openrouter/google/gemini-3.5-flash", "gemini/gemini-3.5-flash"),
    ("groq/meta-llama/Llama-4-Scout", "together_ai/Llama-Vision"),
]


def test_no_image_takes_more_tokens_than_are_reserved() -> None:
    for name, width, height, billed in BILLED:
        assert billed <= image_tokens(name, width, height), name
    for name, same in ELSEWHERE:
        assert image_tokens(name, 1024, 1024) >= image_tokens(same, 1024, 1024), name


def test_the_formulas_of_the_providers_are_met_exactly() -> None:
    assert image_tokens("openai/gpt-4o-mini", 1024, 1024) == 2833 + 4 * 5667
    assert image_tokens("openai/gpt-5.6-sol", 1024, 1024) == 1229
    assert image_tokens("openai/gpt-4.1-mini", 1024, 1024) == 1659
    assert image_tokens("anthropic/claude-haiku-5-5", 1092, 1092) == 1590
    assert image_tokens("hosted_vllm/pixtral", 1024, 1024) == 64 * 64 + 64
    # An open model with GPT in its name is none of OpenAI's.
    assert image_tokens("groq/openai/gpt-oss-120b", 1024, 1024) == 64 * 64 + 64


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted({name for name, *_ in BILLED} | {"y/z", "azure/ours"})),
    st.integers(8, LARGEST_SIDE),
    st.integers(8, LARGEST_SIDE),
)
def test_no_image_within_the_limits_takes_more_than_the_most(
    name: str, width: int, height: int
) -> None:
    height = min(height, SHOWN_PIXELS // width)
    assert image_tokens(name, width, height) <= most_image_tokens(name)


# ---- one more candidate -------------------------------------------------------------------------


class Bench:
    """A project with a model that reads and one that sees, each on a stand-in."""

    def __init__(
        self, root: Path, *, tier: str = "local", more: str = "", context: int = 8000
    ) -> None:
        self.small = Standin()
        self.eyes = Standin()
        self.root = root
        self._tier = tier
        self._more = more
        self._context = context

    def __enter__(self) -> Bench:
        self.small.__enter__()
        self.eyes.__enter__()
        self.small.answer(INVENTED)
        self.eyes.answer(GOOD)
        seeing = model(
            "eyes", self.eyes.url, tier=self._tier, strength=20, context=self._context
        )
        seeing += f"    vision: true\n    image_tokens: 1000\n{self._more}"
        small = model("small", self.small.url)
        root = make_project(self.root / "project", small, seeing, rules=RULES)
        self.engine = Engine(Project(root), env={})
        self.engine.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.engine.__exit__(*error)
        self.eyes.__exit__(*error)
        self.small.__exit__(*error)

    def outcome(
        self, document: Document, run: RunContext | None = None, **changes: Any
    ) -> Outcome:
        run = run or self.engine.start_run("test")
        step = replace(SEEING, **changes)
        done = self.engine.run_batch(run, step, Batch((document,)), LABELS)
        return done.load()[0].outcomes["classify"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path) as made:
        yield made


def scanned(folder: Path, sensitivity: Sensitivity = "internal") -> Document:
    """A PDF of two pages, the second one blank, so that no text recognition is needed."""
    folder.mkdir(exist_ok=True)
    file = PdfFile()
    file.page(TEXT)
    file.page()
    (folder / "a.pdf").write_bytes(file.data())
    return read(folder, sensitivity)["a.pdf"]


def test_text_first_and_eyes_where_it_fails(bench: Bench, tmp_path: Path) -> None:
    document = scanned(tmp_path / "in")
    run = bench.engine.start_run("test")
    outcome = bench.outcome(document, run)
    assert kinds(outcome) == [("small", "first", None), ("eyes", "escalation", None)]
    assert outcome.status == "accepted"
    assert images_in(bench.small.last) == []
    first, second = images_in(bench.eyes.last)
    for data in (first, second):
        with Image.open(io.BytesIO(data)) as shown:
            assert shown.format == "JPEG"
            assert shown.width * shown.height <= SHOWN_PIXELS
            assert max(shown.size) <= LARGEST_SIDE
    # nothing of the images is on record
    ledger = bench.engine.project.root / ".tierwise"
    for path in ledger.rglob("*"):
        if path.is_file():
            assert first[:64] not in path.read_bytes()
    # and the same question again is answered from the ledger
    asked = bench.eyes.count
    again = bench.outcome(document)
    assert again.status == "accepted"
    assert bench.eyes.count == asked


def test_a_repair_keeps_the_images(bench: Bench, tmp_path: Path) -> None:
    bench.eyes.answer("I think it is about delivery.", GOOD)
    outcome = bench.outcome(scanned(tmp_path / "in"))
    assert [kind for _, kind, _ in kinds(outcome)] == ["first", "escalation", "repair"]
    assert len(images_in(bench.eyes.last)) == 2


def test_other_steps_and_changed_texts_show_no_page(
    bench: Bench, tmp_path: Path
) -> None:
    document = scanned(tmp_path / "in")
    for changed, step in (
        (document, {"sees_pages": False}),
        (replace(document, text=f"{TEXT} [NAME]"), {}),
        (document.with_text(f"{TEXT} [PART]"), {}),
        (Document(id="x", text=f"{TEXT} Own.", sensitivity="internal"), {}),
    ):
        before = bench.eyes.count
        assert bench.outcome(changed, **step).status == "accepted"
        assert bench.eyes.count == before + 1
        assert images_in(bench.eyes.last) == []


def test_pages_are_as_guarded_as_their_document(tmp_path: Path) -> None:
    with Bench(tmp_path, tier="proprietary") as bench:
        outcome = bench.outcome(scanned(tmp_path / "in", "confidential"))
        assert outcome.status == "deferred"
        assert bench.eyes.count == 0


def test_the_tokens_of_images_count_for_window_budget_and_number(
    tmp_path: Path,
) -> None:
    document = scanned(tmp_path / "in")
    for name, changed in (
        ("few", {"more": "    max_images: 1\n"}),
        ("window", {"context": 2200}),
    ):
        with Bench(tmp_path / name, **changed) as bench:
            outcome = bench.outcome(document)
            assert outcome.status == "deferred", name
            assert outcome.route is not None
            rejected = [(each.model, each.kind) for each in outcome.route.rejected]
            assert rejected == [("eyes", "context_length")], name
            # the same text without pages goes to it
            assert bench.outcome(replace(document, page_file=None)).model == "eyes"
    with Bench(tmp_path / "budget") as bench:
        # 2 images of 1,000 tokens at a dollar a million do not fit; the text does
        run = bench.engine.start_run("test", budget_usd=Decimal("0.0020"))
        outcome = bench.outcome(document, run)
        assert (outcome.status, bench.eyes.count) == ("deferred", 0)
        without = replace(document, id="b", page_file=None)
        assert bench.outcome(without, run).model == "eyes"


def test_the_pages_of_attached_and_packed_files_are_shown(
    bench: Bench, tmp_path: Path
) -> None:
    """Drawn from the file around them; not where that file, or the one in it, is another."""
    file = PdfFile()
    file.page(TEXT)
    letter = mail("See the archive.")
    packed = zipped({"scans/a.pdf": file.data()})
    letter.add_attachment(packed, "application", "zip", filename="post.zip")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "m.eml").write_bytes(bytes(letter))
    document = read(folder)["m.eml/post.zip/scans/a.pdf"]
    spool = Spool(tmp_path / "spool", "run")
    [document] = spool.put(Batch((document,))).load()
    spool.close()
    changed = mail("See the archive.")
    other = zipped({"scans/a.pdf": pdf("Another letter")})
    changed.add_attachment(other, "application", "zip", filename="post.zip")
    for content in (bytes(changed), bytes(mail("Nothing here.")), b""):
        (folder / "m.eml").write_bytes(content)
        assert bench.outcome(document).status == "deferred"
    assert bench.eyes.count == 0

    (folder / "m.eml").write_bytes(bytes(letter))
    assert bench.outcome(document).status == "accepted"
    assert len(images_in(bench.eyes.last)) == 1


@pytest.mark.parametrize("change", ["gone", "another"])
def test_a_file_that_is_gone_or_changed_is_not_shown(
    bench: Bench, tmp_path: Path, change: str
) -> None:
    document = scanned(tmp_path / "in")
    path = tmp_path / "in" / "a.pdf"
    path.unlink()
    if change == "another":
        path.write_bytes(pdf("Another letter"))
    outcome = bench.outcome(document)
    assert (outcome.status, bench.eyes.count) == ("deferred", 0)


def test_a_golden_row_names_the_file_whose_pages_are_shown(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_bytes(encoded(page("x"), "PNG"))
    rows = [
        {"id": f"r{n}", "text": TEXT, "label": "delivery", "page_file": "scans/a.png"}
        for n in range(5)
    ]
    rows[1] = {**rows[1], "page_file": {"path": "scans/a.png", "pages": 2}}  # type: ignore[dict-item]
    golden = tmp_path / "classify.jsonl"
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = load_golden(golden).examples
    assert [example.document().pages_to_show for example in examples] == [1, 2, 1, 1, 1]
    assert "page_file" not in examples[0].expected
    before = load_golden(golden).hash
    (tmp_path / "scans" / "a.png").write_bytes(encoded(page("y"), "PNG"))
    assert load_golden(golden).hash != before


def test_what_a_model_is_shown_belongs_to_its_certificate() -> None:
    """Or a certificate for the text alone would be valid for the images."""
    assert SEEING.hash(LABELS) != CLASSIFY.hash(LABELS)
    assert SEEING.question(LABELS) == CLASSIFY.question(LABELS)
    assert Model.model_fields["vision"].default is False
