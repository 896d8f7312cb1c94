"""Receivers on loopback that tests stream and publish to: a webhook, and syslog over TLS."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA of a test's own, with a server's certificate for 127.0.0.1 and a client's."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def client(self) -> tuple[Path, Path]:
        return self.folder / "client.pem", self.folder / "client.key"

    def server_context(self, *, ask_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context

    @classmethod
    def made(cls, folder: Path) -> Authority:
        folder.mkdir(parents=True, exist_ok=True)
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _certificate("Test CA", ca_key.public_key(), "Test CA", ca_key, is_ca=True)
        (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        for name in ("server", "client"):
            key = ec.generate_private_key(ec.SECP256R1())
            made = _certificate(name, key.public_key(), "Test CA", ca_key, is_ca=False)
            (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
            (folder / f"{name}.key").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        return cls(folder)


def _certificate(name: str, key: Any, issuer: str, signer: Any, *, is_ca: bool) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if is_ca:
        usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    else:
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)

# What a listener does with one connection.
Serve = Callable[[socket.socket], None]


class Listener:
    """Accepts on a port of loopback, TLS or not, and serves each connection in a thread."""

    def __init__(self, serve: Serve, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._serve, self._context = serve, context
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = int(self._socket.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self._open.add(client)
            thread = threading.Thread(target=self._one, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _one(self, client: socket.socket) -> None:
        # OSError: the peer went away, or we were killed.
        sock = client
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(client, server_side=True)
                self._open.add(sock)
            self._serve(sock)
        except (OSError, ValueError):
            pass
        finally:
            sock.close()
            client.close()

    def kill(self) -> None:
        """Go away as a killed process does: connections end in the middle of whatever they carry."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for one in list(self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in list(self._threads):
            thread.join()


@dataclass
class Request:
    """One request that a hook got."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass
class Hook:
    """A webhook's receiver. `answers` are sent in turn, the last one for ever; raw bytes.

    What has more than `limit` bytes is refused with 413 and noted in `refused` by its length.
    """

    context: ssl.SSLContext | None = None
    answers: list[bytes] = field(default_factory=lambda: [b"HTTP/1.1 204 Fine\r\n\r\n"])
    requests: list[Request] = field(default_factory=list)
    hang: bool = False
    port: int = 0
    limit: int | None = None
    refused: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.release = threading.Event()
        self._listener: Listener | None = None
        self.start()

    def start(self) -> None:
        self._listener = Listener(self._serve, self.context, self.port)
        self.port = self._listener.port

    def kill(self) -> None:
        self.release.set()
        if self._listener is not None:
            self._listener.kill()
            self._listener = None

    def url(self, path: str = "/hook") -> str:
        scheme = "http" if self.context is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def _serve(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as file:
            first = file.readline().decode().split(" ")
            headers = {}
            while (line := file.readline().strip()) != b"":
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            size = int(headers.get("content-length", ""))  # ValueError: we were killed meanwhile
            body = file.read(size)
        if self.limit is not None and size > self.limit:
            self.refused.append(size)
            sock.sendall(b"HTTP/1.1 413 Content Too Large\r\n\r\n")
            return
        self.requests.append(Request(first[1], headers, body))
        if self.hang:
            self.release.wait(60)
            return
        sock.sendall(self.answers[min(len(self.requests), len(self.answers)) - 1])


@dataclass
class Syslog:
    """A receiver of syslog over TLS (RFC 5425).

    `die_after` lets it go away once it has so many messages; `deaf` lets it never close its side,
    `rude` close it without close_notify.
    """

    context: ssl.SSLContext
    messages: list[bytes] = field(default_factory=list)
    die_after: int | None = None
    deaf: bool = False
    rude: bool = False
    port: int = 0

    def __post_init__(self) -> None:
        self.release = threading.Event()
        self._listener: Listener | None = None
        self.start()

    def start(self) -> None:
        self._listener = Listener(self._serve, self.context, self.port)
        self.port = self._listener.port

    def kill(self) -> None:
        self.release.set()
        if self._listener is not None:
            self._listener.kill()
            self._listener = None

    def _serve(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as file:
            while (message := _frame(file)) is not None:
                self.messages.append(message)
                if self.die_after is not None and len(self.messages) >= self.die_after:
                    self.die_after = None
                    raise OSError("this receiver dies here")
        if self.deaf:
            self.release.wait(60)
            return
        assert isinstance(sock, ssl.SSLSocket)
        if not self.rude:
            sock.unwrap()


def _frame(file: Any) -> bytes | None:
    """Return the next message of MSG-LEN SP SYSLOG-MSG, None at the end."""
    digits = b""
    while (byte := file.read(1)) != b" ":
        if not byte:
            return None
        digits += byte
    return bytes(file.read(int(digits)))
