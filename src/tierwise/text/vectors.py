"""Sentence encoders as the rest sees them, and a nearest-neighbour search by their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tierwise.records import Sensitivity


class Encoder(Protocol):
    """A sentence encoder, as `tierwise.gateway.embedders` opens one."""

    @property
    def identity(self) -> str:
        """A hash of all that its vectors depend on."""

    def embed(
        self, texts: Sequence[str], *, sensitivity: Sensitivity = "restricted"
    ) -> Any:
        """Return an array of numbers (texts x dimensions), whose rows have the length 1.

        `sensitivity` is the highest of the texts: an encoder outside the house refuses some.
        """


# opens the encoder of a catalog entry
OpenEncoder = Callable[[str], Encoder]
