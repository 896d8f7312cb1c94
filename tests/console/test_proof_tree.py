"""The drawing of an inclusion proof: it says what the proof says, and shows one that is wrong."""

from __future__ import annotations

import pytest

from audit.merkle import inclusion_proof, leaf_hash, root_of
from kms_console.web import proof_tree

LEAVES = [leaf_hash(str(number).encode()) for number in range(33)]


def proof(index: int, size: int) -> tuple[bytes, list[bytes], bytes]:
    leaves = LEAVES[:size]
    hashes = inclusion_proof(index, size, lambda start, end: root_of(leaves[start:end]))
    return leaves[index], hashes, root_of(leaves)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 21, 33])
def test_every_proof_of_every_entry_comes_to_the_root(size: int) -> None:
    for index in range(size):
        leaf, hashes, root = proof(index, size)
        drawing = proof_tree.draw(index, size, leaf, hashes, root)
        assert drawing.holds
        assert len(drawing.boxes) == 1 + 2 * len(hashes)
        assert [step.given.hash for step in drawing.steps] == [one.hex() for one in hashes]
        assert drawing.boxes[0].hash == root.hex()
        for box in drawing.boxes:
            assert root_of(LEAVES[box.start : box.end]).hex() == box.hash
            assert box.x >= 0 and box.x + drawing.box <= drawing.width
            assert box.y >= 0 and box.y + drawing.high <= drawing.height
        leaves = [box for box in drawing.boxes if box.kind == "leaf"]
        assert [(box.start, box.end) for box in leaves] == [(index, index + 1)]


def test_a_drawing_tells_where_the_root_does_not_come_out() -> None:
    leaf, hashes, root = proof(5, 21)
    assert not proof_tree.draw(5, 21, leaf_hash(b"another"), hashes, root).holds
    assert not proof_tree.draw(5, 21, leaf, [hashes[0], *hashes[2:], hashes[1]], root).holds
    assert not proof_tree.draw(6, 21, leaf, hashes, root).holds
    assert not proof_tree.draw(5, 21, leaf, hashes, LEAVES[0]).holds


def test_a_proof_of_another_length_is_none() -> None:
    leaf, hashes, root = proof(5, 21)
    for wrong in (hashes[1:], [*hashes, hashes[0]]):
        with pytest.raises(ValueError, match="hashes, not"):
            proof_tree.draw(5, 21, leaf, wrong, root)
    with pytest.raises(ValueError, match="there is no entry"):
        proof_tree.draw(21, 21, leaf, hashes, root)


def test_ten_million_entries_make_a_drawing_of_24_levels_that_fits_a_phone() -> None:
    size = 10_000_000
    hashes = [bytes([level]) * 32 for level in range(24)]
    drawing = proof_tree.draw(1_234_567, size, LEAVES[0], hashes, b"r" * 32)
    assert len(drawing.steps) == 24
    # Rows don't touch, and the widest text that a box has, ("Entries 1,234,567 to 9,999,999"), fits.
    assert drawing.high < proof_tree.ROW
    assert max(len(box.covers) for box in drawing.boxes) * 6 < drawing.box + 30
