"""What a source holds: which documents can be read, which cannot, and why, by format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tierwise.records import Document


@dataclass(slots=True)
class FormatCount:
    """The documents of one format: those that are read, in part, or not."""

    read: int = 0
    in_part: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a document: why it waits, or what it lost on reading."""

    id: str
    format: str
    text: str
    waits: bool

    def data(self) -> dict[str, object]:
        """Return the remark as JSON has it."""
        return {
            "id": self.id,
            "format": self.format,
            "waits": self.waits,
            "reason": self.text,
        }


@dataclass(slots=True)
class Survey:
    """The count of all documents of a source, and what is to be said about some of them."""

    formats: dict[str, FormatCount] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    @property
    def read(self) -> int:
        """The documents that go on, those that are read in part among them."""
        return sum(count.read + count.in_part for count in self.formats.values())

    @property
    def in_part(self) -> int:
        """The documents that go on without a part."""
        return sum(count.in_part for count in self.formats.values())

    @property
    def waiting(self) -> int:
        """The documents that cannot be read."""
        return sum(count.waiting for count in self.formats.values())

    def data(self) -> dict[str, object]:
        """Return the survey as JSON has it."""
        formats = {
            name: {"read": each.read, "in_part": each.in_part, "waiting": each.waiting}
            for name, each in sorted(self.formats.items())
        }
        return {
            "read": self.read,
            "in_part": self.in_part,
            "waiting": self.waiting,
            "formats": formats,
            "remarks": [remark.data() for remark in self.remarks],
        }


def survey(documents: Iterable[Document]) -> Survey:
    """Read all documents, and count them by format."""
    result = Survey()
    for document in documents:
        name = document.metadata.get("format") or "no ending"
        count = result.formats.setdefault(name, FormatCount())
        stopped = document.stopped
        lost = document.metadata.get("incomplete", "")
        if stopped:
            count.waiting += 1
            result.remarks.append(Remark(document.id, name, stopped.reason, True))
        elif lost:
            count.in_part += 1
            text = f"goes on without {lost}"
            result.remarks.append(Remark(document.id, name, text, False))
        else:
            count.read += 1
    return result
