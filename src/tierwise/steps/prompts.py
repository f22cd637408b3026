"""The only door to Jinja2: prompt templates become chat messages, and document text stays data.

A prompt is `prompts/<name>.md.j2`: YAML front matter (step, version, max_output_tokens) and two
Jinja blocks, `system` and `user`. What is common to all documents stands first, so that servers
can reuse it; the document stands last, in a delimited block whose name its own text cannot contain.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from jinja2 import (
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    UndefinedError,
    meta,
    nodes,
)
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field

from tierwise.errors import ConfigError, UnknownName, describe_exception
from tierwise.records import Document, Message, canonical_hash
from tierwise.text.settings import Settings
from tierwise.text.yaml import parse_yaml

SUFFIX = ".md.j2"
_FRONT_MATTER = re.compile(r"\A---\n(.*?\n)---\n(.*)\Z", re.DOTALL)
_QUOTED = re.compile(r"'([^']*)'")
# Control tokens of the usual chat formats. Some servers parse them in plain text, too, and would
# take a document's text for an instruction.
_CONTROL_TOKEN = re.compile(
    r"<\|[^|<>\n]{1,40}\|?>|<[^|<>\n]{1,40}\|>|<｜[^<>\n]{1,40}｜>"
    r"|</?s>|<</?SYS>>|<(?:bos|eos|pad|unk)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS"
    r"|CALL_ID|THINK|IMG|AUDIO)\]"
    r"|<(?:start|end)_of_(?:turn|image|audio)>|</?(?:think|tool_call|tool_response)>",
    re.IGNORECASE,
)


class FrontMatter(Settings):
    """The head of a prompt file."""

    step: str = Field(description="The step that it is for.")
    version: Annotated[int, Field(ge=1)] = Field(
        description="Yours to count: the ledger records it as `tone v2`."
    )
    max_output_tokens: Annotated[int, Field(ge=1)] = Field(
        description="The longest answer that is asked for."
    )
    description: str = Field("", description="For people.")


class UndefinedVariable(ConfigError):
    """A prompt uses a variable, or a field of one, that is not there."""


@dataclass(frozen=True)
class Prompt:
    """One loaded prompt template. `first_line` is that of its source in the file."""

    name: str
    path: Path
    head: FrontMatter
    source: str
    template: Template
    first_line: int = 1

    @property
    def label(self) -> str:
        """Name and version, such as `classify v1`: what the ledger records."""
        return f"{self.name} v{self.head.version}"

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the template and its head: a certificate holds for one of these."""
        return canonical_hash([self.head.model_dump(mode="json"), self.source])

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names of all variables that the template reads."""
        names = meta.find_undeclared_variables(self._tree)
        return frozenset(names) - self.template.environment.globals.keys()

    @cached_property
    def metadata_names(self) -> frozenset[str]:
        """The fields of the document's metadata that the template reads."""
        return self._fields_of("metadata")

    def _fields_of(self, variable: str) -> frozenset[str]:
        """Return the names in `variable.name` and `variable["name"]`."""
        found: set[str] = set()
        for read in self._tree.find_all(nodes.Getattr):
            if _is_name(read.node, variable):
                found.add(read.attr)
        for item in self._tree.find_all(nodes.Getitem):
            if _is_name(item.node, variable) and isinstance(item.arg, nodes.Const):
                found.add(str(item.arg.value))
        return frozenset(found)

    @property
    def _tree(self) -> nodes.Template:
        return self.template.environment.parse(self.source)

    @cached_property
    def earlier_steps(self) -> frozenset[str]:
        """The steps whose outcomes the template names.

        Read off `outcomes.classify`, `outcomes["classify"]` and `outcomes.get("classify")`.
        """
        names, _ = self._outcomes_read
        return names

    @property
    def reads_any_outcome(self) -> bool:
        """True where the template may read any step's outcome, such as in a loop over them."""
        _, is_any = self._outcomes_read
        return is_any

    @cached_property
    def _outcomes_read(self) -> tuple[frozenset[str], bool]:
        """The steps that are named, and whether outcomes are read without a name, too."""
        tree = self._tree
        # Each mention of `outcomes` is either by a name or not. Count both: if fewer are named than
        # there are, some mention (a loop, a filter, a variable as key) may read any outcome.
        names = set(self._fields_of("outcomes"))
        named = sum(
            _is_name(attribute.node, "outcomes")
            for attribute in tree.find_all(nodes.Getattr)
        )
        named += sum(
            _is_name(item.node, "outcomes") and isinstance(item.arg, nodes.Const)
            for item in tree.find_all(nodes.Getitem)
        )
        for call in tree.find_all(nodes.Call):
            function = call.node
            if not isinstance(function, nodes.Getattr) or function.attr != "get":
                continue
            if not _is_name(function.node, "outcomes"):
                continue
            # `outcomes.get` was counted above as a field of that name
            names.discard("get")
            key = call.args[0] if call.args else None
            if isinstance(key, nodes.Const):
                names.add(str(key.value))
            else:
                named -= 1
        mentioned = sum(
            _is_name(node, "outcomes") for node in tree.find_all(nodes.Name)
        )
        return frozenset(names), named < mentioned

    @cached_property
    def _globals(self) -> dict[str, Any]:
        return dict(self.template.globals)

    def render(
        self, document: Document, parameters: Mapping[str, Any]
    ) -> tuple[Message, ...]:
        """Return the messages for one document.

        Raises ConfigError, and UndefinedVariable when the template uses an unknown variable.
        """
        accepted = {
            step: outcome.value
            for step, outcome in document.outcomes.items()
            if outcome.status == "accepted"
        }
        variables = {
            **parameters,
            "document": delimited("document", document.text),
            "language": document.language,
            "metadata": dict(document.metadata),
            "outcomes": accepted,
        }
        try:
            # Jinja would merge the globals, a chain of mappings, into each document's variables.
            context = self.template.new_context(
                {**self._globals, **variables}, shared=True
            )
            system = self._block("system", context)
            user = self._block("user", context)
        except Exception as error:  # noqa: BLE001 - a template is code, so it may raise anything
            raise self._fault(error, variables) from None
        return (Message("system", system), Message("user", user))

    def _block(self, name: str, context: Context) -> str:
        """Fill in one block of the template."""
        text = "".join(self.template.blocks[name](context))
        # The whole text, because a control token may also arise where two values meet.
        return neutral(text.strip())

    def _fault(self, error: Exception, variables: Mapping[str, Any]) -> ConfigError:
        """Return the error of the template as one with its place and a hint."""
        kind = ConfigError
        hint = ""
        if isinstance(error, UndefinedError):
            kind = UndefinedVariable
            hint = self._suggestion(variables)
        message = f"the prompt cannot be filled in: {self._cause(error)}{hint}"
        return kind(message, path=self.path, line=self._line_of(error))

    def _suggestion(self, given: Mapping[str, Any]) -> str:
        """Suggest a name for the one variable that is not given; nothing if none is similar."""
        missing = sorted(self.variables - given.keys())
        # With several, it is not known which one the template stopped at.
        if len(missing) != 1:
            return ""
        nearest = get_close_matches(missing[0], sorted(given), n=1)
        if not nearest:
            return ""
        return f"; did you mean '{nearest[0]}'?"

    def _line_of(self, error: Exception) -> int | None:
        """Return the line of the file where filling in the template failed."""
        line = None
        # The deepest frame of the template counts: it may call macros of its own.
        for frame, compiled_line in traceback.walk_tb(error.__traceback__):
            if frame.f_globals.get("environment") is self.template.environment:
                line = self.template.get_corresponding_lineno(compiled_line)
        if line is None:
            return None
        return line + self.first_line - 1

    def _cause(self, error: Exception) -> str:
        """Return the error's own message if it quotes only the template and names of types.

        Any other message could contain the document.
        """
        quoted = [word.removesuffix(" object") for word in _QUOTED.findall(str(error))]
        harmless = all(
            word in self.source or hasattr(builtins, word) for word in quoted
        )
        if isinstance(error, TemplateError) and harmless:
            return str(error)
        # The line of the template is worth more than a place in compiled code.
        if self._line_of(error):
            return type(error).__name__
        return describe_exception(error)


class NoPrompt(Prompt):
    """The head of a step without a model, whose attempts have no prompt."""

    @property
    def label(self) -> str:
        """The step's name: there is no version to count."""
        return self.name


def prompt_without_model(step: str) -> Prompt:
    """Return what stands for the prompt of a step without a model."""
    head = FrontMatter(step=step, version=1, max_output_tokens=1)
    return NoPrompt(step, Path(), head, "", Template(""))


class Prompts:
    """All prompts of a project, by name."""

    def __init__(self, prompts: Mapping[str, Prompt]) -> None:
        self._prompts = dict(prompts)

    def __getitem__(self, name: str) -> Prompt:
        if name not in self._prompts:
            raise UnknownName("prompt", name, self._prompts)
        return self._prompts[name]

    def __iter__(self) -> Any:
        return iter(self._prompts.values())


def load_prompts(folder: Path) -> Prompts:
    """Load every `*.md.j2` of a folder. Raises ConfigError with file and line."""
    prompts, faults = read_prompts(folder)
    for fault in faults:
        raise fault
    return prompts


def read_prompts(folder: Path) -> tuple[Prompts, list[ConfigError]]:
    """Return the valid prompts of a folder, and a fault for each of the others."""
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals = {"block": delimited}
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    prompts: dict[str, Prompt] = {}
    faults: list[ConfigError] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            prompt = _load(path, environment)
        except ConfigError as fault:
            faults.append(fault)
        else:
            prompts[prompt.name] = prompt
    return Prompts(prompts), faults


def _load(path: Path, environment: ImmutableSandboxedEnvironment) -> Prompt:
    try:
        match = _FRONT_MATTER.match(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", path=path) from None
    if not match:
        raise ConfigError(
            "a prompt starts with front matter between two lines of ---",
            path=path,
            line=1,
        )
    head = parse_yaml(match[1], path, first_line=2).validate(FrontMatter)
    # The body follows the front matter and its two lines of ---.
    body_line = match[1].count("\n") + 3
    try:
        template = environment.from_string(match[2])
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"not a valid template: {error.message}",
            path=path,
            line=error.lineno + body_line - 1,
        ) from None
    missing = {"system", "user"} - set(template.blocks)
    if missing:
        raise ConfigError(
            f"the template needs a block named '{min(missing)}'",
            path=path,
            line=body_line,
        )
    name = path.name.removesuffix(SUFFIX)
    return Prompt(name, path, head, match[2], template, body_line)


def _is_name(node: nodes.Expr, name: str) -> bool:
    if not isinstance(node, nodes.Name):
        return False
    return node.name == name


def delimited(name: str, value: Any) -> str:
    """Return a value in a block of its own, whose delimiter does not occur in it.

    The delimiter derives from the content, so equal documents give equal prompts.
    """
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    text = neutral(value)
    # Half a character is possible in a document, and has no plain UTF-8.
    content = text.encode("utf-8", "surrogatepass")
    tag = _tag(name, content)
    # A text that has its own tag gets another one, derived from the first.
    while tag in text:
        tag = _tag(name, tag.encode())
    return f"<{tag}>\n{text}\n</{tag}>"


def _tag(name: str, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"{name}-{digest[:6]}"


def neutral(text: str) -> str:
    """Return the text with spaces in its control tokens, so that no chat template obeys them."""
    return _CONTROL_TOKEN.sub(lambda match: " ".join(match[0]), text)
