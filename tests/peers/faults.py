"""Small proxies on loopback that lose, delay, refuse and spoil what a peer answers.

A test puts one between a backend and a peer, queues a fault, and lets the backend call. Without a
fault every byte of a message passes. `FaultProxy` stands in front of HTTP/1.1 (with TLS on both
sides where it is given a certificate), `GrpcFaultProxy` in front of gRPC's unary calls:

    with FaultProxy("127.0.0.1", port) as proxy:
        proxy.next(Fault.swallow(), when="TrentService.CreateKey")
        ...a backend whose endpoint is proxy.url
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import ipaddress
import select
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

# Bounds against hanging, not measures of speed.
UPSTREAM_SECONDS = 60.0
CLOSING_SECONDS = 20.0

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# They are about one connection, so each side has its own.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection"}

# The gRPC status that Google's services give where HTTP has these (google.rpc.Code).
GRPC_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class What(Enum):
    ANSWER = auto()
    HANG = auto()
    SWALLOW = auto()
    GARBAGE = auto()
    ALTER = auto()
    RESET = auto()


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong with one request. Made by the functions below."""

    what: What
    code: int | str = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    change: Callable[[bytes], bytes] | None = None
    hangs: bool = False

    @classmethod
    def throttle(
        cls, retry_after: float | None = None, body: bytes = b"", code: int = 429
    ) -> Fault:
        """The store asks for fewer calls: 429 with Retry-After, or RESOURCE_EXHAUSTED with RetryInfo.

        `retry_after` in seconds. The peer doesn't get the request.
        """
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        return cls(What.ANSWER, code, body, headers, retry_after)

    @classmethod
    def status(
        cls, code: int | str, body: bytes | str = b"", headers: Mapping[str, str] | None = None
    ) -> Fault:
        """An answer of ours with an HTTP status, or a gRPC one: a number as HTTP's, or gRPC's name.

        `body` is the details of a gRPC status. The peer doesn't get the request.
        """
        return cls(What.ANSWER, code, _bytes(body), headers or {})

    @classmethod
    def hang(cls) -> Fault:
        """No answer, until the client gives up or the proxy is closed; the peer gets nothing."""
        return cls(What.HANG)

    @classmethod
    def swallow(cls, *, hang: bool = False) -> Fault:
        """The peer does what it was asked, and its answer is lost: the connection breaks.

        With `hang` the client waits for its answer until it gives up.
        """
        return cls(What.SWALLOW, hangs=hang)

    @classmethod
    def garbage(cls, body: bytes | str = b'\xff\x00{"not": json', code: int = 200) -> Fault:
        """A success whose body makes no sense. The peer doesn't get the request."""
        return cls(What.GARBAGE, code, _bytes(body), {"Content-Type": "application/json"})

    @classmethod
    def alter(cls, change: Callable[[bytes], bytes]) -> Fault:
        """The peer's own answer, with its body changed by `change`."""
        return cls(What.ALTER, change=change)

    @classmethod
    def reset(cls) -> Fault:
        """The connection breaks before the peer gets the request."""
        return cls(What.RESET)


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that came: what was asked (method and path, or a gRPC method), and its fault."""

    asked: str
    fault: Fault | None


@dataclass(slots=True)
class _Waiting:
    fault: Fault
    when: str
    after: int
    times: int | None


class Faults:
    """The queue that both proxies share."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()
        self.seen: list[Seen] = []
        self.closing = threading.Event()

    def next(self, fault: Fault, *, when: str = "", after: int = 0, times: int | None = 1) -> None:
        """Queue a fault for the next `times` requests (None: all) that hold `when` in them.

        `when` is looked for, in any case, in the request line, the headers and the body; over gRPC
        in the method. The first `after` of such requests pass.
        """
        with self._lock:
            self._waiting.append(_Waiting(fault, when.lower(), after, times))

    def clear(self) -> None:
        """Forget the faults that were not used, and what was seen."""
        with self._lock:
            self._waiting.clear()
            self.seen.clear()

    @property
    def pending(self) -> int:
        """How many entries of the queue are not used up."""
        with self._lock:
            return len(self._waiting)

    def take(self, asked: str, text: str) -> Fault | None:
        """Note a request and return its fault: the first one in the queue that it fits."""
        with self._lock:
            fault = self._fitting(text.lower())
            self.seen.append(Seen(asked, fault))
            return fault

    def _fitting(self, text: str) -> Fault | None:
        for row in self._waiting:
            if row.when not in text:
                continue
            if row.after:
                row.after -= 1
                continue
            if row.times is not None:
                row.times -= 1
                if not row.times:
                    self._waiting.remove(row)
            return row.fault
        return None


class FaultProxy(Faults):
    """In front of an HTTP/1.1 server of this machine.

    `certificate`: a PEM file with a certificate for 127.0.0.1 and its private key (`self_signed`
    makes one). The proxy then speaks TLS to its clients, and to the server unless `tls` says
    otherwise; the server's own certificate is not checked. `host`/`port` name the server. The Host
    header passes as the client wrote it, or as `host_header` says.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        certificate: str | Path | None = None,
        tls: bool | None = None,
        host_header: str = "",
    ) -> None:
        super().__init__()
        assert host in LOOPBACK, "only this machine"
        self.upstream = (host, port)
        self.host_header = host_header
        self.server_tls: ssl.SSLContext | None = None
        self.client_tls: ssl.SSLContext | None = None
        if certificate is not None:
            self.server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.server_tls.load_cert_chain(certificate)
        if tls if tls is not None else certificate is not None:
            self.client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.client_tls.check_hostname = False
            self.client_tls.verify_mode = ssl.CERT_NONE
        self._server = _Server(self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="fault-proxy", daemon=True
        )
        self._thread.start()

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def url(self) -> str:
        scheme = "http" if self.server_tls is None else "https"
        return f"{scheme}://{self.host}:{self.port}"

    def close(self) -> None:
        """End every connection and thread. May be called twice."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join(CLOSING_SECONDS)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self._open: dict[threading.Thread, socket.socket] = {}
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Runs in the connection's own thread: a slow handshake keeps nobody else waiting."""
        if self.proxy.server_tls is not None:
            request.settimeout(UPSTREAM_SECONDS)
            # A client that doesn't trust the certificate just goes; that is its own test's matter.
            try:
                request = self.proxy.server_tls.wrap_socket(request, server_side=True)
            except OSError:
                return
        with self._open_lock:
            self._open[threading.current_thread()] = request
        try:
            if not self.proxy.closing.is_set():
                super().finish_request(request, client_address)
        finally:
            with self._open_lock:
                del self._open[threading.current_thread()]
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what these tests are about."""

    def end_connections(self) -> None:
        with self._open_lock:
            open_now = dict(self._open)
        for connection in open_now.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in open_now:
            thread.join(CLOSING_SECONDS)


class _Lost(Exception):
    """The connection ends here, without an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else each answer waits 40 ms for the acknowledgement of its own headers.
    disable_nagle_algorithm = True
    server: _Server
    # One connection to the peer for each of a client's, opened when it is needed.
    upstream: http.client.HTTPConnection | None = None

    def relay(self) -> None:
        proxy = self.server.proxy
        body = self._body()
        asked = f"{self.command} {self.path}"
        text = f"{asked}\r\n{self.headers}\r\n{body.decode('latin-1')}"
        fault = proxy.take(asked, text)
        try:
            if fault is None:
                self._reply(*self._forward(body))
            else:
                self._go_wrong(fault, body)
        except (_Lost, OSError, http.client.HTTPException):
            self._reset()

    def _go_wrong(self, fault: Fault, body: bytes) -> None:
        if fault.what in (What.ANSWER, What.GARBAGE):
            assert isinstance(fault.code, int), "an HTTP status is a number"
            self._reply(fault.code, list(fault.headers.items()), fault.body)
        elif fault.what is What.ALTER:
            assert fault.change is not None
            status, headers, answer = self._forward(body)
            self._reply(status, headers, fault.change(answer))
        else:
            if fault.what is What.SWALLOW:
                self._forward(body)
            if fault.what is What.HANG or fault.hangs:
                self._wait_until_given_up()
            raise _Lost

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        proxy = self.server.proxy
        if self.upstream is None:
            self.upstream = _connection(proxy)
        peer = self.upstream
        peer.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() == "host" and proxy.host_header:
                value = proxy.host_header
            if name.lower() not in HOP_BY_HOP:
                peer.putheader(name, value)
        if body or "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            peer.putheader("Content-Length", str(len(body)))
        peer.endheaders(body or None)
        answer = peer.getresponse()
        return answer.status, answer.getheaders(), answer.read()

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        bodiless = self.command == "HEAD" or status in (204, 304)
        if not bodiless:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not bodiless:
            self.wfile.write(body)

    def _wait_until_given_up(self) -> None:
        while not self.server.proxy.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.05)
            if readable:
                return  # the client closed it; none speaks before it has its answer

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            # Closing with a linger of 0 seconds sends RST, not FIN.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def finish(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


# LIST is Vault's own.
for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "LIST"):
    setattr(_Handler, f"do_{_method}", _Handler.relay)


def _connection(proxy: FaultProxy) -> http.client.HTTPConnection:
    host, port = proxy.upstream
    if proxy.client_tls is None:
        return http.client.HTTPConnection(host, port, timeout=UPSTREAM_SECONDS)
    return http.client.HTTPSConnection(
        host, port, timeout=UPSTREAM_SECONDS, context=proxy.client_tls
    )


class GrpcFaultProxy(Faults):
    """In front of a gRPC server of this machine, without TLS; unary calls, their bytes untouched."""

    def __init__(self, target: str) -> None:
        super().__init__()
        assert target.removeprefix("dns:///").rpartition(":")[0].strip("[]") in LOOPBACK
        import grpc

        self._pool = ThreadPoolExecutor(16, thread_name_prefix="grpc-fault-proxy")
        self._channel = grpc.insecure_channel(target)
        self._server = grpc.server(self._pool, handlers=(_grpc_handler(self),))
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        self.target = f"127.0.0.1:{self.port}"
        self._server.start()

    def close(self) -> None:
        """End every call and thread. May be called twice."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._server.stop(0).wait(CLOSING_SECONDS)
        self._channel.close()
        self._pool.shutdown(wait=True)

    def __enter__(self) -> GrpcFaultProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def call(self, method: str, request: bytes, context: Any) -> bytes:
        """Carry one call, or let it go wrong."""
        fault = self.take(method, method)
        if fault is None:
            return self._forward(method, request, context)
        if fault.what is What.GARBAGE:
            return fault.body
        if fault.what is What.ALTER:
            assert fault.change is not None
            return fault.change(self._forward(method, request, context))
        if fault.what is What.ANSWER:
            _abort(context, fault)
        if fault.what is What.SWALLOW:
            self._forward(method, request, context)
        if fault.what is What.HANG or fault.hangs:
            gone = threading.Event()
            if context.add_callback(gone.set):
                while not gone.wait(0.05) and not self.closing.is_set():
                    pass
        _abort(context, Fault.status("UNAVAILABLE", "the connection was lost"))
        raise AssertionError("abort raises")

    def _forward(self, method: str, request: bytes, context: Any) -> bytes:
        import grpc

        metadata = [pair for pair in context.invocation_metadata() if pair.key != "user-agent"]
        left = context.time_remaining()
        try:
            answer, call = self._channel.unary_unary(method).with_call(
                request, timeout=min(left or UPSTREAM_SECONDS, UPSTREAM_SECONDS), metadata=metadata
            )
        except grpc.RpcError as error:
            context.set_trailing_metadata(error.trailing_metadata() or ())
            context.abort(error.code(), error.details() or "")
        context.set_trailing_metadata(call.trailing_metadata() or ())
        assert isinstance(answer, bytes)
        return answer


def _grpc_handler(proxy: GrpcFaultProxy) -> Any:
    import grpc

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            method = details.method
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: proxy.call(method, request, context)
            )

    return Handler()


def _abort(context: Any, fault: Fault) -> None:
    """End a call with a status; a throttling one carries google.rpc.RetryInfo, as Google's do."""
    import grpc

    name = fault.code if isinstance(fault.code, str) else GRPC_CODES[fault.code]
    if fault.retry_after is not None:
        from google.protobuf import duration_pb2
        from google.rpc import error_details_pb2, status_pb2

        whole = int(fault.retry_after)
        delay = duration_pb2.Duration(
            seconds=whole, nanos=round((fault.retry_after - whole) * 1_000_000_000)
        )
        status = status_pb2.Status(
            code=grpc.StatusCode[name].value[0], message=fault.body.decode("utf-8", "replace")
        )
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        pair = ("grpc-status-details-bin", status.SerializeToString())
        context.set_trailing_metadata((pair,))
    context.abort(grpc.StatusCode[name], fault.body.decode("utf-8", "replace"))


def self_signed(folder: Path, *names: str) -> Path:
    """Write a PEM file with a certificate of its own for 127.0.0.1, localhost and `names`, and its key.

    The file serves as a proxy's `certificate` and as the `ca_file` of who is to trust it.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kms-console tests")])
    now = datetime.datetime.now(datetime.UTC)
    hosts: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    hosts += [x509.DNSName(name) for name in ("localhost", *names)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "proxy.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    path.chmod(0o600)
    return path


# The setting that says where a key store is, of each kind that has one.
WHERE = ("endpoint", "vault_url", "address")


def in_front_of(
    settings: Mapping[str, Any], folder: Path
) -> tuple[FaultProxy | GrpcFaultProxy, dict[str, Any]]:
    """Start a proxy in front of the server that a key store's settings name; the caller closes it.

    Return it with the settings of a key store behind it. A path after the server's address is kept.
    `folder` takes the proxy's certificate where the server speaks TLS.
    """
    name = next(name for name in WHERE if settings.get(name))
    address = str(settings[name])
    if "://" not in address:
        grpc_proxy = GrpcFaultProxy(address)
        return grpc_proxy, {**settings, name: grpc_proxy.target}
    parts = urllib.parse.urlsplit(address)
    assert parts.hostname is not None and parts.port is not None, "a server of a test has a port"
    secure = parts.scheme == "https"
    certificate = self_signed(folder) if secure else None
    if certificate is not None and settings.get("ca_file"):
        # The server's other addresses, a sign-in server's say, do not pass here and stay trusted.
        with certificate.open("ab") as file:
            file.write(Path(settings["ca_file"]).read_bytes())
    host = parts.hostname if parts.hostname in LOOPBACK else "127.0.0.1"
    proxy = FaultProxy(
        host, parts.port, certificate=certificate, host_header=parts.netloc if secure else ""
    )
    more = {}
    if certificate is not None:
        # What the store trusted before, it goes on trusting: a sign-in server may be beside.
        before = Path(settings["ca_file"]).read_bytes() if settings.get("ca_file") else b""
        trusted = folder / "trusted.pem"
        trusted.write_bytes(certificate.read_bytes() + before)
        more["ca_file"] = str(trusted)
    return proxy, {**settings, name: proxy.url + parts.path, **more}
