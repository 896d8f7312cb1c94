"""What stands beside the log can't be replaced by a hidden key, and is only taken where it is true."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Max, Min

from audit import merkle, tiles
from audit.models import Archive, Checkpoint, Entry, LegalHold, PersonalValue, Tile
from tests.audit.helpers import attacker, write_many
from tests.audit.test_append_only import SAYS, furnish
from tests.databases import Database

TABLES = (Tile, Checkpoint, Archive, LegalHold, PersonalValue)
# Rows that no key but the row id has in common with the one that is there.
OTHERS = {
    "audit_tile": "7, 7, zeroblob(8192), zeroblob(32)",
    "audit_archive": "256, 512, '', '', '', '', '', NULL, '', NULL, NULL, NULL, NULL, 0, NULL",
    "audit_legalhold": "'other', 'other', '', '2000-01-01', NULL, '', '2000-01-01', NULL, NULL",
    "audit_personalvalue": "'other', 'other', 'other', x'00', '2000-01-01', NULL",
    "audit_checkpoint": "1, 256, x'00', '', '', ''",
}


def rows() -> list[list[tuple[Any, ...]]]:
    return [list(table.objects.values_list()) for table in TABLES]


def refused(sql: str, *values: Any) -> None:
    with pytest.raises(IntegrityError, match=SAYS), transaction.atomic():
        connection.cursor().execute(sql, values)
        pytest.fail(sql)


@pytest.mark.parametrize("table", [table._meta.db_table for table in TABLES])
def test_no_row_is_replaced_by_its_hidden_row_id(database: Database, table: str) -> None:
    furnish()
    names = ", ".join(
        f'"{field.column}"'
        for model in TABLES
        if model._meta.db_table == table
        for field in model._meta.concrete_fields
        if field.column  # a key of two columns has none of its own
    )
    before = rows()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT rowid FROM {table}")
        (identity,) = cursor.fetchone()
    for verb in ("INSERT OR REPLACE", "REPLACE"):
        refused(f"{verb} INTO {table} (rowid, {names}) VALUES ({identity}, {OTHERS[table]})")
    for moved in (identity + 1, identity + 100, -5):
        refused(f"UPDATE OR REPLACE {table} SET rowid = {moved}")
    assert rows() == before


def test_a_row_is_not_moved_over_another_one(database: Database) -> None:
    """`UPDATE OR REPLACE ... SET rowid` would remove the row whose row id is taken."""
    furnish()
    now = datetime.now(UTC)
    LegalHold.objects.create(
        name="Case 8",
        reason="r",
        since=now,
        placed_by=LegalHold.objects.get().placed_by,
        placed_at=now,
    )
    refused("UPDATE OR REPLACE audit_legalhold SET rowid = 1 WHERE name = 'Case 8'")
    assert LegalHold.objects.count() == 2


def tile(number: int, level: int = 0, **changes: Any) -> Tile:
    first = number * tiles.WIDTH
    found = Entry.objects.filter(index__gte=first, index__lt=first + tiles.WIDTH)
    hashes = [bytes(one) for one in found.order_by("index").values_list("leaf_hash", flat=True)]
    values = {"hashes": b"".join(hashes), "root": merkle.root_of(hashes), **changes}
    return Tile(level=level, number=number, **values)


@pytest.mark.each_database(fast="postgresql")
def test_a_tile_is_taken_only_where_the_entries_have_its_hashes(database: Database) -> None:
    write_many(600)
    good = tile(0)
    hashes = bytes(good.hashes)
    swapped = hashes[32:64] + hashes[:32] + hashes[64:]
    wrong = {
        "a gap before it": tile(1),
        "a negative level": tile(0, level=-1),
        "no tiles below it": tile(0, level=1),
        "nothing": tile(0, hashes=b""),
        "a hash too few": tile(0, hashes=hashes[:-32]),
        "a hash too many": tile(0, hashes=hashes + hashes[:32]),
        "two swapped": tile(0, hashes=swapped),
        "a bit": tile(0, hashes=hashes[:-1] + bytes([hashes[-1] ^ 1])),
        "a short root": tile(0, root=b"\x00" * 31),
    }
    if database.vendor == "postgresql":
        wrong["another root"] = tile(0, root=b"\x00" * 32)
    for what, row in wrong.items():
        with pytest.raises(IntegrityError, match=SAYS), transaction.atomic():
            row.save(force_insert=True)
            pytest.fail(what)
    good.save(force_insert=True)
    tile(1).save(force_insert=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        tile(2).save(force_insert=True)  # its entries aren't all there
    assert tiles.covered() == 512


def test_a_tile_above_is_taken_only_where_those_below_have_its_hashes(database: Database) -> None:
    with connection.cursor() as cursor:  # 65,536 entries would take long
        cursor.execute("SELECT sql FROM sqlite_master WHERE name = 'audit_tile_in_order'")
        (made,) = cursor.fetchone()
        cursor.execute("DROP TRIGGER audit_tile_in_order")
        roots = [merkle.leaf_hash(bytes([number])) for number in range(256)]
        Tile.objects.bulk_create(
            Tile(level=0, number=number, hashes=bytes(8192), root=root)
            for number, root in enumerate(roots)
        )
        cursor.execute(made)
    hashes = b"".join(roots)
    for wrong in (hashes[32:] + hashes[:32], hashes[:-1] + b"\x00"):
        with pytest.raises(IntegrityError, match=SAYS), transaction.atomic():
            Tile.objects.create(level=1, number=0, hashes=wrong, root=merkle.root_of(roots))
    tiles.build()
    assert bytes(Tile.objects.get(level=1).hashes) == hashes


def test_nothing_is_built_over_a_hole_and_nobody_tries_for_ever(database: Database) -> None:
    write_many(256 * 4)
    with attacker(database) as raw:
        raw.execute('DELETE FROM audit_entry WHERE "index" = 700')
    assert tiles.build() == 2
    assert tiles.build() == 0
    assert tiles.covered() == 512


@pytest.mark.each_database(fast="postgresql")
def test_no_level_is_built_over_a_missing_tile(database: Database) -> None:
    with connection.cursor() as cursor:
        where = " ON audit_tile" if database.vendor == "postgresql" else ""
        cursor.execute(f"DROP TRIGGER audit_tile_in_order{where}")
    numbers = [number for number in range(258) if number != 9]
    Tile.objects.bulk_create(
        Tile(level=0, number=number, hashes=bytes(8192), root=bytes(32)) for number in numbers
    )
    assert tiles.build() == 0
    assert not Tile.objects.filter(level=1).exists()


@pytest.mark.each_database(fast="postgresql")
def test_a_bundle_is_registered_only_with_the_times_of_its_entries(database: Database) -> None:
    write_many(600)
    times = Entry.objects.filter(index__lt=256).aggregate(first_at=Min("at"), last_at=Max("at"))
    now, second = datetime.now(UTC), timedelta(seconds=1)

    def bundle(**changes: Any) -> None:
        values = {"start": 0, "end": 256, **times, **changes}
        with transaction.atomic():
            Archive.objects.create(place="p", name="n", sha256="s", archived_at=now, **values)

    for changes in (
        {"first_at": times["first_at"] - second},
        {"last_at": times["last_at"] + second},
        {"first_at": now, "last_at": now},
        {"end": 512},
        {"end": 768},
        {"end": 100},
        {"start": 256, "end": 512},
        {"start": -256, "end": 0},
        {"verified_at": now},
        {"verified_at": now, "dropped_at": now},
    ):
        with pytest.raises(IntegrityError):
            bundle(**changes)
            pytest.fail(str(changes))
    bundle()
    with pytest.raises(IntegrityError):
        bundle()
    assert Archive.objects.count() == 1
