"""A row of the table of key use: from the body's bytes to the answer's bytes, alone and in batches.

The event loop awaits a row's `aio`; Django's threads call the row. Both are the same reader, the
same operation behind the gate, and the same writer, so both doors give the same bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec
from django.conf import settings
from msgspec import Meta

from keys import operations
from keys.callers import Caller
from keys.gate import Operation
from keys.operations import Item
from keys.secret import Secret
from kms_console.api.rest import problems
from kms_console.api.rest.codecs.strict import BatchReader, Reader

Q = TypeVar("Q", bound=msgspec.Struct)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

Binary = Annotated[bytes, Meta(description="Base64 (RFC 4648, section 4), with padding.")]
Context = Annotated[
    dict[str, str],
    Meta(
        description="Pairs bound to the ciphertext: only the same pairs decrypt it. Not secret, and "
        "their names stand in the audit trail."
    ),
]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1, description="A version's number.")]
Version = Annotated[
    int, Meta(ge=1, le=2**31 - 1, description="A version's number. Left out: the primary.")
]
Algorithm = Annotated[str, Meta(max_length=64, description="Left out: the key's own.")]

# Bodies over this are read in a thread, so that an event loop never stands still for long.
LOOP_BYTES = 64 * 1024
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="batch")


class Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a use may be asked with, and nothing else."""


class Served(msgspec.Struct, kw_only=True):
    """What every answer names: the key, its version, the algorithm."""

    key_id: uuid.UUID
    version: int
    algorithm: str


class ItemProblem(msgspec.Struct, kw_only=True):
    """Why an item failed: a problem (RFC 9457), as its single form would have answered."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | msgspec.UnsetType = msgspec.UNSET


class Leaf(msgspec.Struct, kw_only=True):
    """What a failed item's leaf holds beside its code and position."""

    version: Annotated[int, Meta(description="0 where none was chosen yet.")]
    evidence: Annotated[str, Meta(description="SHA-256 in hex, or empty.")]


class ItemError(msgspec.Struct, kw_only=True):
    """The end of an item that failed, in a batch's results."""

    error: ItemProblem
    leaf: Leaf


def revealed(value: Any) -> Any:
    return value.reveal() if isinstance(value, Secret) else value


@dataclass(frozen=True, slots=True)
class Row(Generic[Q]):
    """One operation. `first` are the members that it takes by position, the rest it takes by name.

    `answer` makes the response of what it returned, where names alone don't say how.
    """

    path: str
    operation: Operation[Any, Any]
    request: type[Q]
    response: type[msgspec.Struct]
    summary: str
    example: Mapping[str, Any]
    answer_example: Mapping[str, Any]
    reader: Reader[Q]
    first: tuple[str, ...] = ()
    arguments_of: Callable[[Q], Arguments] | None = None
    answer: Callable[[Any, Q], msgspec.Struct] | None = None

    @property
    def limit(self) -> int:
        """The most bytes that a body has."""
        return int(settings.BODY_LIMIT)

    def __call__(self, caller: Caller, key: str, body: bytes) -> bytes:
        """Perform the operation, waiting. Raises the errors of keys.errors."""
        return self.perform(caller, key, self.reader(body))

    def perform(self, caller: Caller, key: str, asked: Q) -> bytes:
        positional, named = self.arguments(asked)
        return self.write(self.operation(caller, key, *positional, **named), asked)

    async def aio(self, caller: Caller, key: str, body: bytes) -> bytes:
        """Perform the operation on an event loop."""
        asked = self.reader(body)
        positional, named = self.arguments(asked)
        return self.write(await self.operation.aio(caller, key, *positional, **named), asked)

    def arguments(self, asked: Q) -> Arguments:
        """Return what the operation is called with."""
        if self.arguments_of is not None:
            return self.arguments_of(asked)
        named = {name: getattr(asked, name) for name in asked.__struct_fields__}
        return tuple(named.pop(name) for name in self.first), named

    def shown(self, result: Any, asked: Q) -> msgspec.Struct:
        """Return what the caller gets of an operation's result."""
        if self.answer is not None:
            return self.answer(result, asked)
        names = self.response.__struct_fields__
        return self.response(**{name: revealed(getattr(result, name)) for name in names})

    def write(self, result: Any, asked: Q) -> bytes:
        return msgspec.json.encode(self.shown(result, asked))


class BatchRow:
    """The batch form of a row: many of its requests at once, under one decision and one entry."""

    kind: ClassVar[str] = "batch"

    def __init__(self, row: Row[Any]) -> None:
        self.row, self.operation = row, row.operation
        self.path, self.summary = f"{row.path}/batch", f"{row.summary}: many at once"
        self.request = _request_of(row)
        self.response = _response_of(row)
        self.reader = BatchReader(self.request, row.request)
        self.example = {"items": [row.example]}
        self.answer_example = {
            "entry": "5f0c1d8e-3b1a-4e0e-9a55-0c7f1d2b3a44",
            "items_root": "6e" * 32,
            "results": [row.answer_example, _FAILED],
        }

    @property
    def limit(self) -> int:
        return int(settings.BATCH_BODY_LIMIT)

    def __call__(self, caller: Caller, key: str, body: bytes) -> bytes:
        """Perform the batch, waiting. Raises what concerns the whole of it."""
        asked, items = self._read(body)
        return self._write(self.operation.batch(caller, key, items), asked)

    async def aio(self, caller: Caller, key: str, body: bytes) -> bytes:
        """Perform the batch on an event loop; a large one is read and written beside it."""
        if len(body) <= LOOP_BYTES:
            asked, items = self._read(body)
            return self._write(await self.operation.batch_aio(caller, key, items), asked)
        loop = asyncio.get_running_loop()
        asked, items = await loop.run_in_executor(_threads, self._read, body)
        done = await self.operation.batch_aio(caller, key, items)
        return await loop.run_in_executor(_threads, self._write, done, asked)

    def _read(self, body: bytes) -> tuple[list[Any], list[Item]]:
        asked = self.reader.items(body)
        return asked, [Item(*self.row.arguments(one)) for one in asked]

    def _write(self, batch: operations.Batch[Any], asked: list[Any]) -> bytes:
        results = [
            self.row.shown(done.result, one) if done.error is None else _failed(done)
            for done, one in zip(batch.items, asked, strict=True)
        ]
        answer = {"entry": batch.entry, "items_root": batch.root, "results": results}
        return msgspec.json.encode(answer)


AnyRow = Row[Any] | BatchRow


def _failed(done: Any) -> dict[str, Any]:
    """Return the answer of an item that failed, with all that its leaf is made of."""
    evidence = hashlib.sha256(done.evidence).hexdigest() if done.evidence else ""
    leaf = {"version": done.version or 0, "evidence": evidence}
    return {"error": problems.members(done.error), "leaf": leaf}


def _request_of(row: Row[Any]) -> type[msgspec.Struct]:
    items: Any = list[row.request]  # type: ignore[name-defined]
    told = Meta(min_length=1, description="Requests of the single form, 1,000 at most.")
    return msgspec.defstruct(
        _named(row, "Request"),
        [("items", Annotated[items, told])],
        forbid_unknown_fields=True,
        kw_only=True,
    )


def _response_of(row: Row[Any]) -> type[msgspec.Struct]:
    either = [f"#/components/schemas/{name}" for name in (row.response.__name__, "ItemError")]
    told = Meta(extra_json_schema={"anyOf": [{"$ref": place} for place in either]})
    results: Any = list[Annotated[Any, told]]
    in_hex = Annotated[str, Meta(description="The Merkle root over the items, in hex.")]
    return msgspec.defstruct(
        _named(row, "Response"),
        [("entry", uuid.UUID), ("items_root", in_hex), ("results", results)],
        namespace={
            "__doc__": "Each item's end, in order, and the audit entry that holds the root."
        },
        kw_only=True,
    )


def _named(row: Row[Any], end: str) -> str:
    return f"{row.path.title().replace('-', '')}Batch{end}"


_FAILED = {
    "error": {
        "type": "/api/v1/problems/too_large",
        "title": "The request is too large",
        "status": 413,
        "detail": "The plaintext is limited to 65536 bytes.",
        "code": "too_large",
        "field": "plaintext",
    },
    "leaf": {"version": 0, "evidence": ""},
}


def row(
    path: str,
    operation: Operation[Any, Any],
    request: type[Q],
    response: type[msgspec.Struct],
    first: tuple[str, ...],
    summary: str,
    example: Mapping[str, Any],
    shown: Mapping[str, Any],
    **more: Any,
) -> Row[Q]:
    """Return a row of the table."""
    reader = Reader(request)
    return Row(path, operation, request, response, summary, example, shown, reader, first, **more)


KEY_ID = "0d5f0c0e-2f6a-4c58-9d3e-5c6f7a1b2c3d"
HELLO, SOME = "SGVsbG8sIHdvcmxkIQ==", "S01TQQEBDV8MDi9qTFidPlxvehssPQ=="
WITH = {"patient": "4711"}


def answered(algorithm: str, **members: Any) -> dict[str, Any]:
    """Return the example of an answer."""
    return {"key_id": KEY_ID, "version": 3, "algorithm": algorithm, **members}
