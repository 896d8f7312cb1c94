"""Reading one HTTP/1.1 answer (RFC 9112) from bytes as they arrive, with limits; no sockets here.

Both clients read by it, so both have the same limits and refuse the same things: whatever could be
read in two ways is no answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

HEAD_LIMIT = 32 * 1024
INTERIM_LIMIT = 8
CHUNK_LINE_LIMIT = 256

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?", re.DOTALL)


class BadHttp(Exception):
    """What arrived is no answer of HTTP/1.1, or one over the limits. The text never holds any of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Headers by their names in lower case; `keep`: the connection can be used again."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)
    keep: bool


class AnswerReader:
    """Feed it what arrives until `answer` is there."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._head: tuple[int, dict[str, str], bool] | None = None
        self._interim = 0
        # What is left of the body: bytes, None where it ends with the connection.
        self._length: int | None = None
        self._chunked = False
        self._chunk_left = 0
        self._chunks = bytearray()
        self.begun = False
        self.answer: Answer | None = None

    def feed(self, data: bytes) -> bool:
        """Take what arrived; return whether the answer is whole. Raises BadHttp."""
        self.begun = self.begun or bool(data)
        self._buffer += data
        while self._head is None:
            if not self._read_head():
                return False
        if self._chunked:
            return self._read_chunks()
        if self._length is None:
            if len(self._buffer) > self._limit:
                raise BadHttp("The answer is too long.")
            return False
        if len(self._buffer) < self._length:
            return False
        return self._finish(bytes(self._buffer[: self._length]), self._length)

    def end(self) -> bool:
        """The connection has ended; return whether the answer is whole. Raises BadHttp."""
        if self._head is None or self._chunked or self._length is not None:
            return False
        return self._finish(bytes(self._buffer), len(self._buffer), last=True)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, HEAD_LIMIT + 4)
        if end < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise BadHttp("The answer's headers are too long.")
            return False
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        found = _STATUS.fullmatch(lines[0])
        if found is None:
            raise BadHttp("The answer is not HTTP/1.1.")
        status = int(found[2])
        headers = _headers(lines[1:])
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > INTERIM_LIMIT:
                raise BadHttp("The answer is not one to this request.")
            return True
        stays = found[1] == b"1" and "close" not in _options(headers.get("connection", ""))
        self._head = status, headers, stays
        self._measure(status, headers)
        return True

    def _measure(self, status: int, headers: dict[str, str]) -> None:
        """Find out how long the body is (RFC 9112, 6.3)."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if status in (204, 304):
            self._length = 0
        elif coding is not None:
            if length is not None or coding.lower() != "chunked":
                raise BadHttp("The answer's length is not clear.")
            self._chunked = True
        elif length is not None:
            if not re.fullmatch(r"[0-9]{1,18}", length):
                raise BadHttp("The answer's length is not clear.")
            self._length = int(length)
            if self._length > self._limit:
                raise BadHttp("The answer is too long.")

    def _read_chunks(self) -> bool:
        """Read chunks (RFC 9112, 7.1), and nothing but an empty line behind the last."""
        while True:
            if self._chunk_left:
                # A chunk and the line's end behind it.
                if len(self._buffer) < self._chunk_left + 2:
                    return False
                if self._buffer[self._chunk_left : self._chunk_left + 2] != b"\r\n":
                    raise BadHttp("The answer's chunks are malformed.")
                self._chunks += self._buffer[: self._chunk_left]
                del self._buffer[: self._chunk_left + 2]
                self._chunk_left = 0
            end = self._buffer.find(b"\r\n", 0, CHUNK_LINE_LIMIT + 2)
            if end < 0:
                if len(self._buffer) > CHUNK_LINE_LIMIT:
                    raise BadHttp("The answer's chunks are malformed.")
                return False
            found = _SIZE.fullmatch(self._buffer[:end])
            if found is None:
                raise BadHttp("The answer's chunks are malformed.")
            size = int(found[1], 16)
            if len(self._chunks) + size > self._limit:
                raise BadHttp("The answer is too long.")
            if size == 0:
                return self._read_end(end + 2)
            del self._buffer[: end + 2]
            self._chunk_left = size

    def _read_end(self, start: int) -> bool:
        if len(self._buffer) < start + 2:
            return False
        if self._buffer[start : start + 2] != b"\r\n":
            raise BadHttp("The answer's chunks are malformed.")
        return self._finish(bytes(self._chunks), start + 2)

    def _finish(self, body: bytes, used: int, *, last: bool = False) -> bool:
        assert self._head is not None
        status, headers, stays = self._head
        # Bytes that nobody asked for must not be taken for the next answer's.
        clean = len(self._buffer) == used and not last
        self.answer = Answer(status, headers, body, stays and clean)
        return True


def _headers(lines: list[bytes]) -> dict[str, str]:
    """Return headers by name; what stands twice is joined, as RFC 9110, 5.3, joins it. Raises BadHttp."""
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise BadHttp("The answer's headers are malformed.")
        name, value = found[1].decode("ascii").lower(), found[2].decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def _options(value: str) -> set[str]:
    return {option.strip().lower() for option in value.split(",")}
