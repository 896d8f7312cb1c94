"""What a stream's address says: where to, in which form, and what may be told."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult

from django.conf import settings

from audit.errors import PlaceError, StreamError
from audit.places import http

FORMATS = ("ocsf", "cef", "json")
SYSLOG_PORT = 6514  # RFC 5425
# RFC 5612 keeps this private enterprise number for examples: put your own one into `pen`.
EXAMPLE_PEN = "32473"
_OPTIONS = frozenset({"format", "ca", "cert", "key", "names", "from", "pen", "close"})


@dataclass(frozen=True, slots=True)
class Stream:
    """One receiver. `names`: whether personal data is told in the clear; `start`: None at the end."""

    url: SplitResult
    format: str
    names: bool
    start: int | None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    pen: str = EXAMPLE_PEN
    # Whether a receiver of syslog may end a connection without close_notify.
    eof_will_do: bool = False

    @property
    def is_syslog(self) -> bool:
        return self.url.scheme == "syslog+tls"

    @property
    def host(self) -> str:
        return self.url.hostname or ""

    @property
    def port(self) -> int:
        default = {"syslog+tls": SYSLOG_PORT, "https": 443}.get(self.url.scheme, 80)
        return self.url.port or default

    @property
    def identity(self) -> str:
        """What the cursor is kept under: the receiver and the form, without the address itself.

        A path may hold what only the receiver should know. Other files of TLS, or another start,
        are the same stream.
        """
        where = f"{self.url.scheme} {self.host} {self.port} {self.url.path} {self.url.query}"
        return f"{self.url.scheme} {self.format} {hashlib.sha256(where.encode()).hexdigest()[:16]}"


def configured() -> tuple[list[Stream], list[str]]:
    """Return the streams of settings.AUDIT_STREAMS, and what is wrong with those that can't be used."""
    return parsed(settings.AUDIT_STREAMS)


def parsed(words: Sequence[str]) -> tuple[list[Stream], list[str]]:
    """Return the streams of these addresses, each receiver once, and the problems of the others."""
    streams: dict[str, Stream] = {}
    problems = []
    for number, word in enumerate(words, 1):
        try:
            stream = parse(word)
        except StreamError as error:
            problems.append(f"stream {number}: {error}")
            continue
        if stream.identity in streams:
            problems.append(f"stream {number} is there twice")
        streams.setdefault(stream.identity, stream)
    return list(streams.values()), problems


def parse(word: str) -> Stream:
    """Return the stream of one address. Raises StreamError, whose message repeats none of it."""
    try:
        url, options = http.options(http.split(word), _OPTIONS)
    except PlaceError as error:
        raise StreamError(str(error)) from None
    if url.scheme not in ("syslog+tls", "https", "http"):
        raise StreamError("a stream's address begins with syslog+tls:// or https://")
    if url.scheme == "syslog+tls" and (url.path.strip("/") or url.query):
        raise StreamError("an address of syslog has a host, a port and known options only")
    form = options.get("format", "ocsf")
    if form not in FORMATS:
        raise StreamError(f"format is one of {', '.join(FORMATS)}")
    names = _flag(options.get("names", "no"))
    if names and form == "json":
        raise StreamError(
            "format=json sends entries as they are, so names=yes can't be had with it"
        )
    pen = options.get("pen", EXAMPLE_PEN)
    if not _is_number(pen):
        raise StreamError("pen is a private enterprise number")
    start = options.get("from")
    if start is not None and not _is_number(start):
        raise StreamError("from is the index of an entry")
    close = options.get("close", "notify")
    if close not in ("notify", "eof"):
        raise StreamError("close is notify or eof")
    if "key" in options and "cert" not in options:
        raise StreamError("key needs cert")
    return Stream(
        url,
        form,
        names,
        None if start is None else int(start),
        options.get("ca"),
        options.get("cert"),
        options.get("key"),
        pen,
        close == "eof",
    )


def _flag(word: str) -> bool:
    if word not in ("yes", "no"):
        raise StreamError("names is yes or no")
    return word == "yes"


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 15
