"""Boxes: what a condition holds for, as one set of classes for each thing that it looks at.

A condition is a conjunction, so what it holds for is a box: for each dimension the bits of the classes of
values that it takes; a dimension that is not named takes all. Whether routes cover each other is then decided
exactly, however many combinations there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

Box = Mapping[
    str, int
]  # dimension -> one bit for each class of values; never empty, never all of them

MOST_PIECES = 1000  # pieces that what is left over may fall into before nobody counts them any more
MOST_CLASSES = 16  # classes that a box may take in its narrowest dimension to be found by them


def meet(a: Box, b: Box) -> Box | None:
    """What lies in both, or None."""
    met = dict(a)
    for name, bits in b.items():
        met[name] = met.get(name, bits) & bits
        if not met[name]:
            return None
    return met


def covers(a: Box, b: Box) -> bool:
    """Whether all of `b` lies in `a`."""
    return all(name in b and not b[name] & ~bits for name, bits in a.items())


def minus(a: Box, b: Box, full: Box) -> Iterator[Box]:
    """What of `a` lies outside of `b`, in pieces that do not overlap. `full` has all bits of each dimension."""
    rest = dict(a)
    for name, bits in b.items():
        if outside := rest.get(name, full[name]) & ~bits:
            yield {**rest, name: outside}
        rest[name] = rest.get(name, full[name]) & bits
        if not rest[name]:
            return


def without(pieces: Sequence[Box], box: Box, full: Box) -> list[Box]:
    """What of some pieces lies outside of a box."""
    return [
        part
        for piece in pieces
        for part in (minus(piece, box, full) if meet(piece, box) is not None else (piece,))
    ]


def reached(boxes: Sequence[Box], full: Box) -> Iterator[Sequence[Box] | None]:
    """For each box, what of it no box before it takes: nothing at all when it is never reached.

    None stands for "some of it, perhaps", where what is left over falls into too many pieces to count.
    """
    left: list[Box] = [{}]
    seen = _Seen()
    for box in boxes:
        if len(left) > MOST_PIECES:
            yield () if seen.cover(box) else None
        else:
            yield tuple(met for piece in left if (met := meet(piece, box)) is not None)
            left = without(left, box, full)
        seen.add(box)


class _Seen:
    """Boxes by a class of values that they take, so that few are asked whether they cover another one."""

    def __init__(self) -> None:
        self._by_class: dict[tuple[str, int], list[Box]] = {}
        self._wide: list[Box] = []

    def add(self, box: Box) -> None:
        name, bits = min(box.items(), key=lambda item: item[1].bit_count(), default=("", 0))
        if not 0 < bits.bit_count() <= MOST_CLASSES:
            self._wide.append(box)
        while 0 < bits.bit_count() <= MOST_CLASSES:
            self._by_class.setdefault((name, bits & -bits), []).append(box)
            bits &= bits - 1

    def cover(self, box: Box) -> bool:
        """Whether one of them holds all of a box: then it takes the lowest class of the box in its own dimension."""
        near = (self._by_class.get((name, bits & -bits), ()) for name, bits in box.items())
        return any(covers(other, box) for other in chain(self._wide, *near))


def in_all(pieces: Sequence[Box], unions: Sequence[Sequence[Box]]) -> list[Box]:
    """What of some pieces lies in every one of these unions of boxes."""
    for union in unions:
        pieces = [met for piece in pieces for box in union if (met := meet(piece, box)) is not None]
    return list(pieces)
