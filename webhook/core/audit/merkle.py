"""The Merkle tree of RFC 6962 over SHA-256: roots, inclusion proofs, consistency proofs and their verification.

The tree is defined by its perfect subtrees: ``node(level, index)`` is the root of the 2**level leaves that begin at
``index * 2**level``. Functions that build a proof take such a reader and never see the leaves.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HASH_SIZE = 32
# RFC 6962, section 2.1: the root of the empty tree.
EMPTY_ROOT = sha256(b"").digest()


class NodeReader(Protocol):
    """Return the root of a perfect subtree."""

    def __call__(self, level: int, index: int) -> bytes:
        """``index`` counts subtrees of 2**level leaves."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash one entry."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two siblings."""
    return sha256(b"\1" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the root of 2**n sibling hashes."""
    level = list(hashes)
    while len(level) > 1:
        level = [sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
    return level[0]


class Frontier:
    """The perfect subtrees on the right edge of a growing tree: enough to append leaves and compute the root."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)
        if len(self._peaks) != size.bit_count():
            raise ValueError("the number of subtrees does not match the size")

    @classmethod
    def read(cls, node: NodeReader, size: int) -> Frontier:
        """Return the frontier of the tree with ``size`` leaves."""
        return cls(size, [node(level, (size >> level) - 1) for level in _bits(size)])

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        peak, size = leaf, self.size
        while size & 1:
            peak = sha256(b"\1" + self._peaks.pop() + peak).digest()
            size >>= 1
        self._peaks.append(peak)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the tree."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def copy(self) -> Frontier:
        """Return an independent copy."""
        return Frontier(self.size, self._peaks)


def _bits(size: int) -> list[int]:
    """The levels of the perfect subtrees of a tree, from the left."""
    return [level for level in range(size.bit_length() - 1, -1, -1) if size >> level & 1]


def _split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


def subtree(node: NodeReader, low: int, high: int) -> bytes:
    """Return the root of the leaves [low, high); ``low`` is a multiple of a power of two not below ``high - low``."""
    size = high - low
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, low >> level)
    middle = low + _split(size)
    return node_hash(subtree(node, low, middle), subtree(node, middle, high))


def root_of(node: NodeReader, size: int) -> bytes:
    """Return the root of the tree with ``size`` leaves."""
    return subtree(node, 0, size) if size else EMPTY_ROOT


def inclusion_proof(node: NodeReader, index: int, size: int) -> list[bytes]:
    """Prove that the leaf ``index`` is in the tree of ``size`` leaves (RFC 6962, 2.1.1).

    Raises:
        ValueError: the leaf is not in the tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"entry {index} is not in a log of {size} entries")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(subtree(node, middle, high))
            high = middle
        else:
            path.append(subtree(node, low, middle))
            low = middle
    return path[::-1]


def consistency_proof(node: NodeReader, old: int, new: int) -> list[bytes]:
    """Prove that the tree of ``old`` leaves is a prefix of the tree of ``new`` leaves (RFC 6962, 2.1.2).

    Raises:
        ValueError: ``old`` is larger than ``new``.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a log of {new} entries has no prefix of {old} entries")
    if old in (0, new):
        return []
    path, low, high, complete = [], 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(subtree(node, middle, high))
            high = middle
        else:
            path.append(subtree(node, low, middle))
            low, complete = middle, False
    if not complete:
        path.append(subtree(node, low, high))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Check an inclusion proof (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    first, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if first & 1 or first == last:
            value = node_hash(sibling, value)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and value == root


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Check a consistency proof (RFC 9162, 2.1.4.2)."""
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    if not 0 < old < new or not proof:
        return False
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    old_value = new_value = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            old_value, new_value = node_hash(sibling, old_value), node_hash(sibling, new_value)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            new_value = node_hash(new_value, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and old_value == old_root and new_value == new_root
