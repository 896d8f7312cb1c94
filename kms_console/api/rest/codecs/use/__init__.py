"""The table of key use: one row an operation, in files by noun as keys.operations has them.

Every row has a batch form, at its own address with /batch behind it. Random bytes need no key, so
they stand beside the table.
"""

from __future__ import annotations

from typing import Any

from kms_console.api.rest.codecs.use import agree, crypt, public, sign
from kms_console.api.rest.codecs.use.public import RANDOM, JwkSet, as_jwk
from kms_console.api.rest.codecs.use.row import AnyRow, BatchRow, ItemError, Row

ROWS: tuple[Row[Any], ...] = (*crypt.ROWS, *sign.ROWS, *agree.ROWS, *public.ROWS)
USES: dict[str, Row[Any]] = {row.path: row for row in ROWS}
BATCHES: dict[str, BatchRow] = {f"{row.path}/batch": BatchRow(row) for row in ROWS}
RANDOM_BATCH = BatchRow(RANDOM)

# By what stands behind the key in an address.
TABLE: dict[str, AnyRow] = {**USES, **BATCHES}

__all__ = [
    "BATCHES",
    "RANDOM",
    "RANDOM_BATCH",
    "ROWS",
    "TABLE",
    "USES",
    "AnyRow",
    "BatchRow",
    "ItemError",
    "JwkSet",
    "Row",
    "as_jwk",
]
