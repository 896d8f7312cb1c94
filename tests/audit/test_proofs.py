"""Proofs come from tiles and entries alike, and show what a walk over every leaf shows."""

from __future__ import annotations

import threading

import pytest
from django.db import IntegrityError, connection, connections, transaction

from audit import merkle, proofs, tiles
from audit.models import Entry, Tile
from audit.writer import head
from tests.audit.helpers import write_many
from tests.databases import Database


def leaves() -> list[bytes]:
    rows = Entry.objects.order_by("index").values_list("leaf_hash", flat=True)
    return [bytes(leaf) for leaf in rows]


def check_all(hashes: list[bytes], sizes: list[int]) -> None:
    for size in sizes:
        root = merkle.root_of(hashes[:size])
        prover = proofs.Prover(size)
        assert prover.root() == root
        assert prover.frontier().root() == root
        for index in {0, 1, size // 3, size // 2, size - 2, size - 1, 255, 256, 257} & set(
            range(size)
        ):
            path = prover.inclusion(index)
            assert merkle.verify_inclusion(hashes[index], index, size, path, root)
        for first in {1, 2, size // 2 + 1, size - 1, size, 256, 512} & set(range(1, size + 1)):
            path = prover.consistency(first)
            old = merkle.root_of(hashes[:first])
            assert merkle.verify_consistency(first, size, old, root, path)


SIZES = [1, 2, 3, 255, 256, 257, 511, 512, 513, 700, 768, 800]


@pytest.mark.each_database(fast="postgresql")
def test_every_proof_holds_before_during_and_after_the_tiles_are_built(database: Database) -> None:
    write_many(800)
    hashes = leaves()
    assert tiles.covered() == 0
    check_all(hashes, SIZES)
    assert tiles.build(limit=2) == 2
    assert tiles.covered() == 512
    check_all(hashes, SIZES)
    assert tiles.build() == 1
    assert tiles.build() == 0
    check_all(hashes, SIZES)
    assert proofs.root_at(800) == head().root
    assert proofs.root_at(0) == merkle.EMPTY_ROOT


def store_tiles(hashes: list[bytes]) -> None:
    """Write full tiles of level 0 as if so many entries had been appended."""
    # These entries don't exist, which the database would say.
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER audit_tile_in_order")
    rows = []
    for number in range(len(hashes) // tiles.WIDTH):
        part = hashes[number * tiles.WIDTH : (number + 1) * tiles.WIDTH]
        rows.append(Tile(level=0, number=number, hashes=b"".join(part), root=merkle.root_of(part)))
    Tile.objects.bulk_create(rows)


def test_tiles_of_higher_levels_are_built_and_read(database: Database) -> None:
    size = 256 * 256 + 3 * 256
    hashes = [merkle.leaf_hash(index.to_bytes(4)) for index in range(size)]
    store_tiles(hashes)
    tiles.build()
    assert list(Tile.objects.filter(level=1).values_list("number", flat=True)) == [0]
    check_all(hashes, [256, 65_535, 65_536, 65_537, 65_536 + 256, size])


def test_a_proof_reads_a_handful_of_rows_however_long_the_log_is(
    database: Database, django_assert_max_num_queries: object
) -> None:
    size = 256 * 256 + 3 * 256
    store_tiles([merkle.leaf_hash(index.to_bytes(4)) for index in range(size)])
    tiles.build()
    with django_assert_max_num_queries(10):  # type: ignore[operator]
        proofs.inclusion(40_000, size)
    with django_assert_max_num_queries(10):  # type: ignore[operator]
        proofs.consistency(65_000, size)


def test_where_an_entry_is_missing_there_is_no_proof_rather_than_a_wrong_one(
    database: Database,
) -> None:
    write_many(300)
    with pytest.raises(ValueError, match="missing"):
        proofs.inclusion(5, 301)
    with pytest.raises(ValueError, match="no leaf"):
        proofs.inclusion(300, 300)
    with pytest.raises(ValueError, match="no consistency"):
        proofs.consistency(301, 300)


@pytest.mark.each_database(fast="postgresql")
def test_two_builders_at_once_build_each_tile_once(database: Database) -> None:
    write_many(256 * 12)
    errors: list[BaseException] = []

    def build() -> None:
        try:
            tiles.build(limit=12)
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(Tile.objects.order_by("number").values_list("number", flat=True)) == list(range(12))
    check_all(leaves(), [256 * 12])


def test_a_tile_that_is_there_is_never_written_anew(database: Database) -> None:
    write_many(256)
    tiles.build()
    row = Tile.objects.get()
    for statement in (
        "UPDATE audit_tile SET hashes = hashes",
        "DELETE FROM audit_tile",
        "INSERT OR REPLACE INTO audit_tile (level, number, hashes, root) VALUES (0, 0, x'', x'')",
    ):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    assert Tile.objects.get() == row
