"""The tree: proofs hold for what they prove and for nothing else."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhook.core.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    fold,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(str(number).encode()) for number in range(600)]


def node(level, index):
    return fold(LEAVES[index << level : (index + 1) << level])


def naive_root(leaves):
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\1" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def test_roots_are_those_of_the_rfc():
    """The frontier and the perfect subtrees give the RFC's root at every size."""
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT
    for size, leaf in enumerate(LEAVES[:300], 1):
        frontier.append(leaf)
        assert frontier.root() == naive_root(LEAVES[:size]) == root_of(node, size)
        assert Frontier.read(node, size).root() == frontier.root()


@given(st.integers(1, 600), st.data())
def test_inclusion(size, data):
    """A proof holds for its leaf and index, and not for another leaf, index or root."""
    index = data.draw(st.integers(0, size - 1))
    proof, root = inclusion_proof(node, index, size), root_of(node, size)
    assert verify_inclusion(LEAVES[index], index, size, proof, root)
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        assert not verify_inclusion(LEAVES[other], index, size, proof, root)
        assert not verify_inclusion(LEAVES[index], other, size, proof, root)
    assert not verify_inclusion(LEAVES[index], index, size, proof, bytes(32))
    assert not verify_inclusion(LEAVES[index], index, size, [*proof, bytes(32)], root)
    if proof:
        assert not verify_inclusion(LEAVES[index], index, size, proof[:-1], root)


@settings(max_examples=300)
@given(st.integers(0, 600), st.integers(0, 600), st.data())
def test_consistency(one, two, data):
    """A proof holds for a prefix and for no other tree."""
    old, new = min(one, two), max(one, two)
    proof = consistency_proof(node, old, new)
    old_root, new_root = root_of(node, old), root_of(node, new)
    assert verify_consistency(old, new, proof, old_root, new_root)
    if 0 < old < new:
        assert not verify_consistency(old, new, proof, bytes(32), new_root)
        assert not verify_consistency(old, new, proof, old_root, bytes(32))
        invalid = list(proof)
        invalid[data.draw(st.integers(0, len(proof) - 1))] = bytes(32)
        assert not verify_consistency(old, new, invalid, old_root, new_root)
        assert not verify_consistency(old, new, proof[:-1], old_root, new_root)


def test_proofs_outside_the_tree():
    """A leaf beyond the tree and a prefix longer than the tree have no proof."""
    with pytest.raises(ValueError, match="not in a log of 5"):
        inclusion_proof(node, 5, 5)
    with pytest.raises(ValueError, match="no prefix of 6"):
        consistency_proof(node, 6, 5)
    assert not verify_inclusion(LEAVES[0], 5, 5, [], bytes(32))
    with pytest.raises(ValueError, match="does not match"):
        Frontier(3, [bytes(32)])
