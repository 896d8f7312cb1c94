"""The tree against published vectors, against the RFC's recursive definition, and against forgers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import merkle
from audit.merkle import Frontier, leaf_hash, node_hash

# The eight leaves and their roots that implementations of RFC 6962 have shared since 2013.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# (index, size) -> audit path
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}
# (first, second) -> proof
CONSISTENT = {
    (1, 1): [],
    (1, 8): PATHS[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}


def recursive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(recursive_root(leaves[:k]), recursive_root(leaves[k:]))


class Tree:
    def __init__(self, size: int) -> None:
        self.leaves = [n.to_bytes(4) for n in range(size)]
        self.hashes = [leaf_hash(leaf) for leaf in self.leaves]

    def range_hash(self, start: int, end: int) -> bytes:
        return recursive_root(self.leaves[start:end])

    def root(self, size: int) -> bytes:
        return recursive_root(self.leaves[:size])


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int) -> None:
    assert merkle.root_of(map(leaf_hash, LEAVES[:size])).hex() == ROOTS[size]


@pytest.mark.parametrize(("place", "path"), PATHS.items())
def test_inclusion_proofs_are_the_published_ones(place: tuple[int, int], path: list[str]) -> None:
    proof = merkle.inclusion_proof(*place, lambda a, b: recursive_root(LEAVES[a:b]))
    assert [step.hex() for step in proof] == path


@pytest.mark.parametrize(("sizes", "path"), CONSISTENT.items())
def test_consistency_proofs_are_the_published_ones(sizes: tuple[int, int], path: list[str]) -> None:
    proof = merkle.consistency_proof(*sizes, lambda a, b: recursive_root(LEAVES[a:b]))
    assert [step.hex() for step in proof] == path


@given(st.integers(0, 300))
def test_a_frontier_gives_the_root_of_the_definition_and_survives_storage(size: int) -> None:
    tree, frontier = Tree(size), Frontier()
    for leaf in tree.hashes:
        frontier = Frontier.from_bytes(frontier.size, frontier.to_bytes())
        frontier.append(leaf)
    assert frontier.root() == tree.root(size)
    for start, end, subtree in frontier.subtrees():
        assert subtree == tree.range_hash(start, end)


@given(st.data(), st.integers(1, 200))
def test_each_inclusion_proof_verifies_and_for_nothing_else(data: st.DataObject, size: int) -> None:
    tree = Tree(size)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(index, size, tree.range_hash)
    leaf, root = tree.hashes[index], tree.root(size)
    assert merkle.verify_inclusion(leaf, index, size, proof, root)
    assert not merkle.verify_inclusion(leaf_hash(b"forged"), index, size, proof, root)
    assert not merkle.verify_inclusion(leaf, index, size, proof, leaf_hash(b"forged"))
    assert not merkle.verify_inclusion(leaf, index, size, [*proof, root], root)
    assert not merkle.verify_inclusion(leaf, size, size, proof, root)
    assert not merkle.verify_inclusion(leaf, -1, size, proof, root)
    for other in {0, size - 1, index - 1, index + 1} & set(range(size)) - {index}:
        assert not merkle.verify_inclusion(leaf, other, size, proof, root)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        bent = [*proof[:at], leaf_hash(proof[at]), *proof[at + 1 :]]
        assert not merkle.verify_inclusion(leaf, index, size, bent, root)
        assert not merkle.verify_inclusion(leaf, index, size, proof[:-1], root)


@given(st.data(), st.integers(1, 200))
def test_each_consistency_proof_verifies_and_for_nothing_else(
    data: st.DataObject, second: int
) -> None:
    tree = Tree(second)
    first = data.draw(st.integers(1, second))
    proof = merkle.consistency_proof(first, second, tree.range_hash)
    old, new, forged = tree.root(first), tree.root(second), leaf_hash(b"forged")
    assert merkle.verify_consistency(first, second, old, new, proof)
    assert not merkle.verify_consistency(first, second, forged, new, proof)
    assert not merkle.verify_consistency(first, second, old, forged, proof)
    assert not merkle.verify_consistency(first, second, old, new, [*proof, new])
    if first < second:
        assert not merkle.verify_consistency(second, first, new, old, proof)
        at = data.draw(st.integers(0, len(proof) - 1))
        bent = [*proof[:at], leaf_hash(proof[at]), *proof[at + 1 :]]
        assert not merkle.verify_consistency(first, second, old, new, bent)
        assert not merkle.verify_consistency(first, second, old, new, proof[:-1])


def test_an_empty_tree_is_a_prefix_of_every_tree_and_of_nothing_by_a_false_root() -> None:
    root = Tree(3).root(3)
    assert merkle.verify_consistency(0, 3, merkle.EMPTY_ROOT, root, [])
    assert merkle.verify_consistency(0, 0, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, [])
    assert not merkle.verify_consistency(0, 3, root, root, [])
    assert not merkle.verify_consistency(3, 0, root, merkle.EMPTY_ROOT, [])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_there_is_no_proof_for_a_leaf_outside(index: int, size: int) -> None:
    with pytest.raises(ValueError):
        merkle.inclusion_proof(index, size, Tree(3).range_hash)


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 3), (-1, 3)])
def test_there_is_no_consistency_proof_backwards(first: int, second: int) -> None:
    with pytest.raises(ValueError):
        merkle.consistency_proof(first, second, Tree(4).range_hash)


@pytest.mark.parametrize(("size", "length"), [(1, 0), (3, 32), (2, 64), (1, 31), (0, 32)])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size: int, length: int) -> None:
    with pytest.raises(ValueError):
        Frontier.from_bytes(size, bytes(length))


@pytest.mark.parametrize("length", [0, 16, 64])
def test_a_proof_with_steps_of_other_lengths_proves_nothing(length: int) -> None:
    """Two hashes cut elsewhere hash to the same: an old root that never was would be consistent."""
    leaves = [leaf_hash(b"%d" % at) for at in range(4)]
    pair, both = node_hash(leaves[0], leaves[1]), leaves[2] + leaves[3]
    new = node_hash(pair, node_hash(leaves[2], leaves[3]))
    forged = node_hash(pair, both[:length])
    proof = [both[:length], both[length:], pair]
    assert not merkle.verify_consistency(3, 4, forged, new, proof)
    true = [both[:32], both[32:], pair]
    assert merkle.verify_consistency(3, 4, node_hash(pair, leaves[2]), new, true)
    assert not merkle.verify_inclusion(leaves[0], 0, 4, [leaves[1], both[:length]], new)
