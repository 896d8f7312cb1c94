"""Refusals with Google's status codes, the clock, and checksums of this server's own."""

from __future__ import annotations

import time
from pathlib import Path

import grpc


class Refused(Exception):
    """One call is refused: a gRPC status and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = grpc.StatusCode[code]
        self.message = message


def invalid(message: str) -> Refused:
    return Refused("INVALID_ARGUMENT", message)


def not_found(name: str) -> Refused:
    return Refused("NOT_FOUND", f"{name} not found.")


def precondition(message: str) -> Refused:
    return Refused("FAILED_PRECONDITION", message)


class Clock:
    """The machine's time, moved by as many seconds as a file says; no file: not at all."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> float:
        try:
            return time.time() + float(self._file.read_text() or 0)
        except FileNotFoundError:
            return time.time()


def _table() -> list[int]:
    rows = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 & -(number & 1))
        rows.append(number)
    return rows


_ROWS = _table()


def crc32c(data: bytes) -> int:
    """RFC 3720's checksum, one byte at a time."""
    rest, rows = 0xFFFFFFFF, _ROWS
    for byte in data:
        rest = rest >> 8 ^ rows[(rest ^ byte) & 255]
    return rest ^ 0xFFFFFFFF


def check(message: object, field: str, data: bytes) -> bool:
    """Whether a request's checksum field is there; refuse the request where it is wrong."""
    if not message.HasField(field):  # type: ignore[attr-defined]
        return False
    if getattr(message, field).value != crc32c(data):
        raise invalid(f"The checksum in field {field} did not match the data.")
    return True
