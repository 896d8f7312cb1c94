"""Syslog messages (RFC 5424) over TLS (RFC 5425).

The protocol acknowledges nothing. So each batch has a connection of its own, and counts as taken once
the receiver answered our close_notify with its own (it must, says RFC 5425, 4.4): then whoever reads
there has read to the end of the batch. That it also wrote down what it read, no sender can know.
"""

from __future__ import annotations

import re
import socket
import ssl
from datetime import UTC

from audit.errors import PlaceUnavailable
from audit.places import http
from audit.places.http import Cutter
from audit.streams.addresses import Stream
from audit.streams.batches import Batch, Message

APP_NAME = "kms-console"
FACILITY = 13  # log audit (RFC 5424, table 1)
SECONDS = 30.0
BOM = b"\xef\xbb\xbf"
# Syslog's severities, by OCSF's: informational, notice, warning, error, critical.
_SEVERITY = {1: 6, 2: 5, 3: 4, 4: 3, 5: 2}
_UNFIT = re.compile(r"[^\x21-\x7e]")


class SyslogSender:
    """Sends batches to one receiver. Made anew after a failure, so that renewed files are read."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._context = http.tls(stream.ca, stream.certificate, stream.key)
        self._host = _word(socket.gethostname(), 255)

    def send(self, batch: Batch, cutter: Cutter) -> None:
        """Deliver a batch. Raises PlaceUnavailable or PlaceError where it may not have been taken."""
        data = b"".join(framed(self.formatted(message)) for message in batch.messages)
        sock = http.connect(self._stream.host, self._stream.port, self._context)
        assert isinstance(sock, ssl.SSLSocket)
        try:
            with cutter.watching(sock, SECONDS):
                sock.settimeout(SECONDS)
                sock.sendall(data)
                _ensure_open(sock)
                _close_and_wait(sock, eof_will_do=self._stream.eof_will_do)
        except (OSError, ValueError) as error:
            raise PlaceUnavailable(f"the batch was not taken: {http.reason(error)}") from None
        finally:
            sock.close()

    def formatted(self, message: Message) -> bytes:
        """Return one syslog message. It begins with a BOM where it is not plain ASCII (section 6.4)."""
        priority = FACILITY * 8 + _SEVERITY[message.severity]
        at = message.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        data = (
            f'[entry@{self._stream.pen} index="{message.index}" leaf="{message.leaf.hex()}"'
            f' uuid="{_word(message.uuid, 36)}"]'
        )
        head = f"<{priority}>1 {at} {self._host} {APP_NAME} - {_word(message.action, 32)} {data} "
        return head.encode() + (b"" if message.line.isascii() else BOM) + message.line


def framed(message: bytes) -> bytes:
    """Return a message with its length before it (RFC 5425, 4.3)."""
    return b"%d %b" % (len(message), message)


def _word(text: str, limit: int) -> str:
    """Return a header field: printable ASCII without blanks, "-" for nothing."""
    return _UNFIT.sub("?", text)[:limit].replace('"', "?").replace("]", "?") or "-"


def _ensure_open(sock: ssl.SSLSocket) -> None:
    """Raise PlaceUnavailable where the receiver closed before we did: it may not have read it all."""
    sock.settimeout(0)
    try:
        data = sock.recv(1)
    except ssl.SSLWantReadError:
        sock.settimeout(SECONDS)
        return
    raise PlaceUnavailable(
        "the receiver answered, which syslog never does"
        if data
        else "the receiver closed too early"
    )


def _close_and_wait(sock: ssl.SSLSocket, *, eof_will_do: bool) -> None:
    """Send close_notify and wait for the receiver's, then for the end of its side.

    Who goes away with something unread resets the connection; that is an OSError here. An end
    without close_notify is also what a killed receiver leaves: it counts only where the address says so.
    """
    try:
        raw = sock.unwrap()
    except OSError as error:
        if not _is_end(error):
            raise
        if eof_will_do:
            return
        raise PlaceUnavailable("the receiver ended the connection without close_notify") from None
    raw.shutdown(socket.SHUT_WR)
    while raw.recv(4096):
        continue


def _is_end(error: OSError) -> bool:
    """Whether this is an end without close_notify: SSLEOFError, or errno 0, by OpenSSL's version."""
    return isinstance(error, ssl.SSLEOFError) or (type(error) is OSError and error.errno == 0)
