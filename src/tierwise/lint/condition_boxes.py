"""Boxes: the documents that a condition matches, as one set of value classes per dimension.

A condition is a conjunction, so its documents form a box: for each dimension, the bits of the value
classes that it accepts. A dimension that is not named accepts all. That way it is decided exactly
whether routes cover each other, however many combinations there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

# dimension -> one bit for each class of values; never none of them, never all
Box = Mapping[str, int]

MAX_PIECES = 1000  # the rest that no box has taken is tracked up to this many pieces
# a box is indexed by its narrowest dimension up to this many classes
MAX_INDEXED_CLASSES = 16


def meet(a: Box, b: Box) -> Box | None:
    """Return the intersection of two boxes, or None where it is empty."""
    both = dict(a)
    for name, bits in b.items():
        both[name] = both.get(name, bits) & bits
        if not both[name]:
            return None
    return both


def covers(a: Box, b: Box) -> bool:
    """Return True if all of `b` lies in `a`."""
    for name, bits in a.items():
        # a dimension that `b` does not name accepts all, and `bits` are never all
        inside = name in b and not b[name] & ~bits
        if not inside:
            return False
    return True


def minus(a: Box, b: Box, full: Box) -> Iterator[Box]:
    """Yield the part of `a` outside of `b`, in pieces that do not overlap.

    `full` has all bits of each dimension. Dimension by dimension, what lies outside of `b` is one
    piece, and what lies inside is cut further.
    """
    rest = dict(a)
    for name, bits in b.items():
        own = rest.get(name, full[name])
        outside = own & ~bits
        if outside:
            yield {**rest, name: outside}
        rest[name] = own & bits
        if not rest[name]:
            return


def without(pieces: Sequence[Box], box: Box, full: Box) -> list[Box]:
    """Return the parts of some pieces that lie outside of a box."""
    outside: list[Box] = []
    for piece in pieces:
        if meet(piece, box) is None:
            outside.append(piece)
        else:
            outside += minus(piece, box, full)
    return outside


def meetings(pieces: Sequence[Box], boxes: Sequence[Box]) -> list[Box]:
    """Return every non-empty intersection of a piece with a box."""
    common: list[Box] = []
    for piece in pieces:
        for box in boxes:
            both = meet(piece, box)
            if both is not None:
                common.append(both)
    return common


def reached(boxes: Sequence[Box], full: Box) -> Iterator[Sequence[Box] | None]:
    """Yield, for each box, the part that no box before it takes: empty when it is never reached.

    None means "some of it, perhaps", where the rest falls into too many pieces to count.
    """
    left: list[Box] = [{}]  # one piece: a box that names no dimension has everything
    earlier = _CoverIndex()
    for box in boxes:
        # beyond that, only a box that one earlier box covers is known to be unreachable
        if len(left) > MAX_PIECES:
            yield () if earlier.has_cover_of(box) else None
        else:
            yield tuple(meetings(left, [box]))
            # the pieces stay disjoint, so none is counted twice
            left = without(left, box, full)
        earlier.add(box)


class _CoverIndex:
    """Boxes by one of the value classes that they accept, so that few have to be compared."""

    def __init__(self) -> None:
        # by dimension and the bit of one class
        self._by_class: dict[tuple[str, int], list[Box]] = {}
        self._wide: list[Box] = []  # too many classes in every dimension to be indexed

    def add(self, box: Box) -> None:
        """Index a box by each class of its narrowest dimension."""
        name, bits = min(
            box.items(), key=lambda item: item[1].bit_count(), default=("", 0)
        )
        # no bits: the box names no dimension, so it covers every other one
        if not 0 < bits.bit_count() <= MAX_INDEXED_CLASSES:
            self._wide.append(box)
            return
        while bits:
            key = (name, _lowest_bit(bits))
            self._by_class.setdefault(key, []).append(box)
            bits &= bits - 1  # clears the lowest bit

    def has_cover_of(self, box: Box) -> bool:
        """Return True if one of the boxes contains all of `box`.

        A box that does accepts, in the dimension it is indexed by, the lowest class of `box`.
        """
        near: list[Box] = []
        for name, bits in box.items():
            key = (name, _lowest_bit(bits))
            near += self._by_class.get(key, ())
        return any(covers(other, box) for other in chain(self._wide, near))


def _lowest_bit(bits: int) -> int:
    return bits & -bits


def in_all(pieces: Sequence[Box], unions: Sequence[Sequence[Box]]) -> list[Box]:
    """Return the parts of some pieces that lie in every one of these unions of boxes."""
    common = list(pieces)
    for union in unions:
        common = meetings(common, union)
    return common
