"""Feed damaged and random input to everything that reads: it may raise our errors, and nothing else.

    python -m benchmarks.fuzz                     # a minute each
    python -m benchmarks.fuzz --seconds 10 rules  # one, for ten seconds

Stops at the first finding of each reader, makes it small, prints it, and exits with 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.kit import marked_pdf, word_files
from tests.kit.mails import samples
from tests.kit.office_files import mail, pdf, word
from tests.kit.projects import ROOT
from tests.kit.replies import (
    ANTHROPIC,
    ELSEWHERE,
    GEMINI,
    OPENAI,
    PARTS,
    sent,
    strange,
)
from tests.kit.steps import CLASSIFY, GOOD, LABELS, TEXT
from tests.kit.usages import DOCUMENTED, USAGE, is_known, owed
from tierwise.documents import iter_documents
from tierwise.documents.readers import decode
from tierwise.documents.readers.formats import extract
from tierwise.errors import TierwiseError
from tierwise.evidence.replay import read_outcomes
from tierwise.gateway.http_exchange import ErrorStatus, HttpExchange
from tierwise.gateway.provider_errors import translated_errors
from tierwise.gateway.replies import to_reply
from tierwise.gateway.usage import read_usage, with_plain_counts
from tierwise.policy.catalog import Catalog, Model, load_catalog
from tierwise.policy.certificates import load_certificates
from tierwise.policy.router import worst_case
from tierwise.policy.rules import load_rules
from tierwise.records import Call, Document, Message
from tierwise.steps.checks import (
    fields_are_quoted,
    no_placeholders,
    numbers_are_in_the_document,
    same_language,
)
from tierwise.steps.correctness import is_equivalent
from tierwise.steps.examples import load_golden
from tierwise.steps.golden_settings import load_settings
from tierwise.steps.step import Step
from tierwise.text.numbers import missing_number, numbers_of
from tierwise.text.tokens import estimate_prompt_tokens

# what tends to break readers of text: ends, quotes, numbers that are none, references to oneself
NASTY = [
    *(
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\n",
        b"\r",
        b"\t",
        b'"',
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"-",
        b"#",
    ),
    *(
        b"null",
        b"true",
        b"1e999",
        b"-1",
        b"NaN",
        b".inf",
        b"9" * 5000,
        b"2026-13-45",
        b"0x",
        b"1_0",
        b"\\ud800",
    ),
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/object:os.system ",
        b"? ",
        b"|\n",
        b"%",
        b"---\n",
        b"...\n",
        b"[" * 3000,
    ),
    *(
        b'{"a":' * 2000,
        "\N{ZERO WIDTH JOINER}\N{RIGHT-TO-LEFT OVERRIDE}ß".encode(),
        b"${A|B}",
        b"{{",
        b"<|im_start|>",
    ),
    *(
        b"--b0\r\nContent-Type: text/html\r\n\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\n",
        b"=?utf-8?B?",
        b"begin 644 a\n",
        b"-----BEGIN PGP MESSAGE-----",
        b"{\\rtf1\\u-1?",
        b"\x30\x80\xa0\x80",
    ),
    # what breaks rows: quotes out of place, delimiters of other dialects, lines of other files
    *(
        b'""',
        b'","',
        b'\n"',
        b'"\n',
        b'\\"',
        b"\r",
        b"\r\n",
        b";",
        b"\t",
        b"sep=;\n",
        b"\xef\xbb\xbf",
        b"\xef\xb7\x90",
        b"7,KEY999X is late,7\n",
        b"Dear Sir,\nit is late, again.\n",
    ),
]
# Tables whose every text holds a marker, for `_marked_table`.
_ROWS = [f"{number},KEY{number:03}X is late,7" for number in range(1, 30)]
_QUOTED = [f'{number},"KEY{number:03}X is late,\nagain",7' for number in range(1, 20)]
TABLES = tuple(
    "\n".join(rows).encode() + b"\n"
    for rows in (_ROWS, _QUOTED, _ROWS[:9] + _QUOTED[9:])
)
_MARKER = re.compile(r"KEY\d{3}X")
_LINES = re.compile(r"lines? (\d+)(?: to (\d+))?")
CERTIFICATES = """version: 1
certificates:
- {step: classify, models: [a, b], identities: {a: x, b: y}, prompt: classify v1, prompt_hash: h, step_hash: h,
   golden: g.jsonl, golden_hash: h, n: 100, errors: 1, bound: 0.9, date: 2026-11-01, tierwise_version: 0.1.0}
"""
PAGE = b"<table><tr><td>a<p>b</table><a href=x>y</a>"
FORM = (
    b"<form><input value=Oak><select><option>a<option selected>b</select><textarea>c</textarea>"
    b"<input type=radio checked><iframe srcdoc='<p>d'></iframe><img src=x><embed src=y></form>"
)
OUTCOMES = "item,step,prompt_tokens,model,tier,score,cost_usd\n" + "".join(
    f"{item},s,10,{model},t,1,0.1\n" for item in "xy" for model in "ab"
)
GOLDEN = '{"id": "1", "text": "x", "label": "a"}\n{"id": "2", "text": "y", "expected": {"label": "b"}}\n'


ENCODED = (
    "注文した①椅子".encode("euc_jis_2004"),
    b"\x1b$B-!CmJ8$7$?0X;R\x1b(B\x1b$(D\x22\x2f\x1b(I1\x1b(B",
    b"\x1b$)C\x0e1W\x0f ~{<:Ky~} Gr+APYA3w-e",
    "Größe für Müller".encode("cp1252"),
    "sipariş ettiğim".encode("cp1254"),
    "Größe\n".encode("utf-16-le"),
    "Größe 😀".encode("utf-16", "surrogatepass"),
    b"Gr\xc3\xb6\xc3\x9fe \xed\xa0\xbd\xed\xb8\x80",
)
NUMBERS = tuple(
    text.encode()
    for text in (
        "1 240,50 and 1.240.50 on 12.05.2026, ½ 2½ ⑫ m²",
        "٢٤٠ १२ １２ 1\u00ad2",
        "五月十二日 二百四十 3万 二〇二六",
        "twenty-one hundred and five thousand",
        "zweihunderteinundvierzig quatre-vingt-dix-sept mil doscientos",
    )
)


class Value(BaseModel):
    value: str | None
    quote: str | None


class Terms(BaseModel):
    party: Value
    amounts: list[Value]
    share: float
    urgent: bool | None = None


EXTRACT = Step(
    name="extract",
    returns=Terms,
    prompt="extract",
    checks=(
        fields_are_quoted,
        numbers_are_in_the_document,
        no_placeholders,
        same_language,
    ),
)
TERMS = '{"party": {"value": "Ann", "quote": "Ann"}, "amounts": [{"value": "2,140", "quote": "2140"}], "share": 0.5}'


@dataclass(frozen=True)
class Reader:
    """One way in, and good input that is damaged for it."""

    read: Callable[[bytes], object]
    good: tuple[bytes, ...]
    strange: st.SearchStrategy[bytes] | None = None  # well-formed, and odd


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A reader of files, given bytes."""

    def from_bytes(data: bytes) -> object:
        with tempfile.TemporaryDirectory(prefix="tierwise-fuzz-") as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            return read(path)

    return from_bytes


def _documents(path: Path) -> object:
    documents = list(iter_documents(path, sensitivity="internal"))
    for document in documents:
        json.dumps(
            [document.id, document.text, dict(document.metadata)], ensure_ascii=False
        ).encode()
    assert documents, "a file vanished"
    return documents


def _marked_table(data: bytes) -> object:
    """Read a table; each marker must be in a document, or its line in the reason of a deferred one."""
    # A guess at the encoding could make one character of a marker's letter and the byte before it.
    content = b"id,text,n\n" + data.decode("utf-8", "replace").encode()
    with tempfile.TemporaryDirectory(prefix="tierwise-fuzz-") as folder:
        path = Path(folder) / "a.csv"
        path.write_bytes(content)
        documents = list(iter_documents(path, sensitivity="internal"))
    read = ""
    named: set[int] = set()
    for document in documents:
        if document.id == "a.csv":
            return documents  # the file as a whole was refused
        read += f"{document.id} {document.text} {dict(document.metadata)} "
        unreadable = document.outcomes.get("read")
        for match in _LINES.finditer(unreadable.reason if unreadable else ""):
            named.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    for number, line in enumerate(content.split(b"\n"), 1):
        for marker in _MARKER.findall(line.decode("latin-1")):
            assert marker in read or number in named, (
                f"{marker} on line {number} is lost"
            )
    return documents


@cache
def _catalog() -> Catalog:
    return load_catalog(ROOT / "routing_rules" / "catalog.yaml")


def _answer(step: Step, parameters: Mapping[str, object]) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        output = step.parse(data.decode("utf-8", "replace"))
        if not isinstance(output, BaseModel):
            return output
        document = Document(id="a", text=TEXT)
        return [check(output, document, parameters) for check in step.checks]

    return read


def _reply(data: bytes) -> object:
    model = Model.model_validate(_MODEL)
    call = Call(
        model="m",
        identity="m",
        messages=(Message("user", TEXT),),
        max_tokens=9,
        response_schema=CLASSIFY.schema(LABELS),
    )
    for code in (200, 400):
        exchange = HttpExchange(
            direct=True, url="http://127.0.0.1", status=code, content=data
        )
        with translated_errors(model, call, exchange, ()):
            if code == 400:
                raise ErrorStatus
            reply = to_reply(exchange.body, exchange, call, model, 0.0)
            # What the ledger cannot store, such as half a character, would end the run.
            f"{reply.text}{reply.served_model}{reply.finish_reason}".encode()
            _answer(CLASSIFY, LABELS)(reply.text.encode())
    return None


def _usage(data: bytes) -> object:
    """Read the usage in a body; what it costs must be no less than what it may mean."""
    model = Model.model_validate(_PRICED)
    call = Call(
        model="m", identity="m", messages=(Message("user", TEXT),), max_tokens=50
    )
    exchange = HttpExchange(
        direct=True, url="http://127.0.0.1", status=200, content=data
    )
    usage = read_usage(exchange.body, model, call, answered=True)
    json.dumps(with_plain_counts(exchange.body))
    tokens = estimate_prompt_tokens(call.messages)
    cost = worst_case(model, tokens, call.max_tokens)
    if usage is not None:
        counts = (usage.cached_tokens, usage.prompt_tokens, usage.completion_tokens)
        assert all(type(count) is int and 0 <= count < 2**63 for count in counts), usage
        assert usage.cached_tokens <= usage.prompt_tokens, usage
        cost = model.cost(usage)
    reported = exchange.body.get("usage")
    if set(exchange.body) == {"usage"} and is_known(reported):
        assert cost is not None
        assert cost >= owed(reported), (usage, owed(reported))
    return usage


def _strange_usages() -> st.SearchStrategy[bytes]:
    """The usage of every provider with any JSON in any place, and counts that contradict."""
    documented = strange(*DOCUMENTED).map(sent)
    contradictory = USAGE.map(lambda usage: sent({"usage": usage}))
    return documented | contradictory


def _events(reply: object) -> bytes:
    """A reply as a server sends it in a stream."""
    return b"data: " + sent(reply) + b"\n\ndata: [DONE]\n\n"


_MODEL = {
    "name": "m",
    "tier": "t",
    "litellm_params": {"model": "openai/m"},
    "context_tokens": 9,
    "max_output_tokens": 9,
    "price": "unknown",
    "strength": 1,
}


_PRICED = _MODEL | {
    "context_tokens": 8000,
    "max_output_tokens": 500,
    "price": {
        "input": 1,
        "output": 2,
        "cached_input": "0.1",
        "source": "made up",
        "date": "2026-11-01",
    },
}


def _decoded(data: bytes) -> object:
    """Read bytes under several labels: any of them may be false."""
    for label in (
        None,
        "utf-8",
        "iso-8859-1",
        "iso-2022-jp",
        "utf-16",
        "utf-7",
        "gb2312",
    ):
        with suppress(TierwiseError):
            text, notes = decode(data, label)
            json.dumps([text, notes], ensure_ascii=False).encode(
                "utf-8", "surrogatepass"
            )
    return None


def _numbers(data: bytes) -> object:
    """Look for the numbers of a text in itself, in every language: all of them must be there."""
    text = data.decode("utf-8", "replace")
    for language in (None, "en", "de", "fr", "es", "ja"):
        known = numbers_of(text, language)
        assert missing_number(text, known) is None
        is_equivalent(text, text[::-1])
    return None


def _golden(path: Path) -> object:
    return load_golden(path, at_least=1)


def _shipped(name: str) -> bytes:
    return (ROOT / "routing_rules" / name).read_bytes()


def _strange_replies() -> st.SearchStrategy[bytes]:
    """Replies of every format with any JSON in any place, some of them in a stream."""
    replies = strange(OPENAI, PARTS, ELSEWHERE, ANTHROPIC, GEMINI)
    return replies.map(sent) | replies.map(_events)


def readers() -> dict[str, Reader]:
    """Everything that reads what others wrote."""
    rows = (
        b"text,id,sensitivity\nhello,1,internal\n",
        b'{"text": "hello", "id": 1}\n{"text": "x"}\n',
        b'sep=;\nid;text;n\n1;"a ""b"",\nc";2\n\n2;d;NaN\n3;"e \\"f\\"";;\n',
        b'{"id": 123456789012345678901, "text": "\\ud83d", "n": NaN},\n{"text": -Infinity}\n',
        b'[\n{"text": "a"},\n{"text": "b"}\n]\n',
    )
    parts = word_files.everything()
    texts = (
        b"---\nsensitivity: internal\ntopic: x\n---\nHello there\n",
        "Größe".encode("utf-16"),
        b"---\nFrom: Ann\nSubject: Re: shelf\n---\nHello\n",
        b"+++\nsensitivity = 'internal'\n+++\nHello\n",
        "\u200b\ufeff---\nsensitivity: restricted\n---\n\u3164".encode(),
    )
    return {
        **{f"document{suffix}": Reader(_in_file(f"a{suffix}", _documents), rows) for suffix in (".csv", ".jsonl")},
        "tables": Reader(_marked_table, TABLES),
        **{f"document{suffix}": Reader(_in_file(f"a{suffix}", _documents), texts) for suffix in (".txt", ".md")},
        "document.pdf": Reader(lambda data: extract(data, ".pdf"), (pdf("Hello there"), marked_pdf.everything())),
        "document.docx": Reader(lambda data: extract(data, ".docx"), (word(), parts.data())),
        "document.docx.xml": Reader(lambda data: extract(parts.data(data), ".docx"), (parts.document(),)),
        "document.html": Reader(lambda data: extract(data, ".html"), (PAGE, FORM)),
        "document.eml": Reader(lambda data: extract(data, ".eml"), (bytes(mail()), *samples())),
        "encodings": Reader(_decoded, ENCODED),
        "numbers": Reader(_numbers, NUMBERS),
        "rules": Reader(_in_file("rules.yaml", lambda path: load_rules(path, _catalog())), (_shipped("rules.yaml"),)),
        "catalog": Reader(_in_file("catalog.yaml", load_catalog), (_shipped("catalog.yaml")[:3000],)),
        "certificates": Reader(_in_file("certificates.yaml", load_certificates), (CERTIFICATES.encode(),)),
        "label": Reader(_answer(CLASSIFY, LABELS), (GOOD.encode(), b"Well: ```json\n" + GOOD.encode() + b"\n```")),
        "terms": Reader(_answer(EXTRACT, {}), (TERMS.encode(),)),
        "reply": Reader(_reply, (sent(OPENAI), _events(PARTS), b'{"error": {"message": "no"}}'), _strange_replies()),
        "usage": Reader(_usage, tuple(map(sent, DOCUMENTED)), _strange_usages()),
        "outcomes": Reader(_in_file("o.csv", read_outcomes), (OUTCOMES.encode(),)),
        "packed-outcomes": Reader(_in_file("o.csv.gz", read_outcomes), (b"\x1f\x8b\x08\0" + b"\0" * 30,)),
        "golden.jsonl": Reader(_in_file("g.jsonl", _golden), (GOLDEN.encode(),)),
        "golden.csv": Reader(_in_file("g.csv", _golden), (b"id,text,label\n1,x,a\n",)),
        "golden.yaml": Reader(_in_file("g.yaml", load_settings), (b"parameters: {labels: [a, b]}\nrubric: [x]\n",)),
    }  # fmt: skip


def damaged(good: bytes) -> st.SearchStrategy[bytes]:
    """Good input with some of it gone, repeated, or replaced by what is nasty."""
    piece = st.sampled_from(NASTY) | st.binary(max_size=6)
    edit = st.tuples(
        st.integers(0, len(good)),
        st.integers(0, 12),
        piece,
        st.sampled_from([0, 0, 20]),
    )

    def apply(edits: list[tuple[int, int, bytes, int]]) -> bytes:
        data = good
        for place, gone, added, again in edits:
            data = data[:place] + added + data[max(0, place + gone - again) :]
        return data

    return st.lists(edit, min_size=1, max_size=6).map(apply)


def try_out(reader: Reader, *, examples: int, number: int | None = None) -> int:
    """Read so many inputs; how many were read. Raises whatever is no error of ours."""
    count = 0
    kinds = [damaged(good) for good in reader.good]
    kinds += [st.binary(max_size=200), st.text().map(_encoded)]
    if reader.strange is not None:
        kinds += [reader.strange] * len(kinds)  # half of all
    inputs = st.one_of(*kinds)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(inputs)
    def one(data: bytes) -> None:
        nonlocal count
        count += 1
        with suppress(TierwiseError):
            reader.read(data)

    (one if number is None else seed(number)(one))()
    return count


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def main() -> int:
    """Try out the readers, each for some seconds."""
    known = readers()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="READER", help=f"default: all of {', '.join(known)}"
    )
    parser.add_argument("--seconds", type=float, default=60, help="for each reader")
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(
            f"no reader named {', '.join(unknown)}; there are {', '.join(known)}"
        )
    logging.disable()  # parsers complain of what they are given
    found = [
        name
        for name in options.names or known
        if not _for_a_while(name, known[name], options.seconds)
    ]
    return int(bool(found))


def _for_a_while(name: str, reader: Reader, seconds: float) -> bool:
    """Whether a reader went without a finding for some seconds."""
    end = time.monotonic() + seconds
    tried = 0
    number = time.time_ns()
    try:
        while time.monotonic() < end:
            tried += try_out(reader, examples=50, number=number + tried)
    except Exception:  # noqa: BLE001 - any error but ours is what we are looking for
        traceback.print_exc()
        print(f"{name}: a finding after {tried} inputs, see above", flush=True)
        return False
    print(f"{name}: {tried} inputs", flush=True)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
