"""The witness's HTTP: small, bounded in everything, and without TLS, which ends in front of it."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from audit.errors import SignerError
from audit.witness.client import Answer
from audit.witness.judging import BODY_LIMIT, TEXT, Judge

log = logging.getLogger(__name__)

CONNECTIONS = 64  # at once; more wait in the system's queue
CONNECTION_SECONDS = 30.0  # from its first byte to its end, whatever happens on it
SILENCE_SECONDS = 10.0


class WitnessServer(ThreadingHTTPServer):
    """Serves one judge."""

    daemon_threads = True
    # Binding to an address another witness still uses must fail.
    allow_reuse_port = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], judge: Judge) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.judge = judge
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server for our own name, as the base class would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        self._free.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        timer = threading.Timer(CONNECTION_SECONDS, _end, [request])
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is nobody's concern; anything else is told, without its address."""
        log.debug("A connection ended with an error.", exc_info=True)


def _end(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """POST /add-checkpoint, GET /checkpoints/<sha256 of origin>, GET /key."""

    server: WitnessServer
    protocol_version = "HTTP/1.1"
    timeout = SILENCE_SECONDS  # seconds, for each read
    server_version, sys_version = "kms-console-witness", ""

    def do_POST(self) -> None:
        body = self._body()
        if isinstance(body, Answer):
            self.close_connection = True  # what was sent with it is not read
            self._answer(body)
        elif self.path != "/add-checkpoint":
            self._answer(_none())
        else:
            self._answer(self._judged(body))

    def do_GET(self) -> None:
        judge = self.server.judge
        if self.path == "/key":
            self._answer(Answer(200, TEXT, f"{judge.vkey()}\n".encode()))
        elif self.path.startswith("/checkpoints/"):
            try:
                self._answer(judge.checkpoint(self.path.removeprefix("/checkpoints/")))
            except SignerError:
                self._answer(_unable())
        else:
            self._answer(_none())

    def _judged(self, body: bytes) -> Answer:
        try:
            return self.server.judge.add_checkpoint(body)
        except (OSError, SignerError):
            log.exception("The witness can't remember, so it does not sign.")
            return _unable()

    def _body(self) -> bytes | Answer:
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            return Answer(411, TEXT, b"The request must say its length.\n")
        if len(length) > 9 or int(length) > BODY_LIMIT:
            return Answer(413, TEXT, b"The request is too long.\n")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            return Answer(400, TEXT, b"The request ended early.\n")
        return body

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep no log of requests: nothing in them is worth what anybody could fill it with."""


def _none() -> Answer:
    return Answer(404, TEXT, b"There is nothing here.\n")


def _unable() -> Answer:
    return Answer(503, TEXT, b"This witness can't remember at the moment, so it does not sign.\n")
