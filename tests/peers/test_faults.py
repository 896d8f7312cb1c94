"""The proxies of these tests do what they say, and nothing else."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.peers.faults import Fault, FaultProxy, GrpcFaultProxy, self_signed


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(f"{self.command} {self.path}")
        answer = json.dumps(
            {"body": body.decode("latin-1"), "host": self.headers["Host"], "x": self.headers["X-Y"]}
        ).encode()
        self.send_response(404 if self.path == "/nothing" else 200)
        self.send_header("X-Own", "kept")
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


for _method in ("GET", "POST", "LIST", "HEAD"):
    setattr(Echo, f"do_{_method}", Echo.answer)


class Upstream:
    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        handler = type("Handler", (Echo,), {"asked": self.asked})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = False  # so that closing waits for them
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", upstream.port) as one:
        yield one


def ask(
    proxy: FaultProxy, method: str = "GET", path: str = "/", body: bytes = b"", timeout: float = 60
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)
    try:
        connection.request(method, path, body, {"X-Y": "z"})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_without_a_fault_everything_passes(proxy: FaultProxy, upstream: Upstream) -> None:
    for method in ("GET", "POST", "LIST"):
        answer, body = ask(proxy, method, "/a?b=c", b"\x00\xff body")
        assert (answer.status, answer.headers["X-Own"]) == (200, "kept")
        told = {"body": "\x00\xff body", "host": f"127.0.0.1:{proxy.port}", "x": "z"}
        assert json.loads(body) == told
    assert ask(proxy, "HEAD")[1] == b""
    assert ask(proxy, path="/nothing")[0].status == 404
    assert [seen.asked for seen in proxy.seen] == upstream.asked


def test_one_connection_carries_many_requests_and_chunks(proxy: FaultProxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    for _ in range(3):
        connection.request("POST", "/", iter([b"one ", b"two"]), encode_chunked=True)
        assert json.loads(connection.getresponse().read())["body"] == "one two"
    connection.close()


def test_a_fault_happens_once_and_only_to_whom_it_is_for(
    proxy: FaultProxy, upstream: Upstream
) -> None:
    proxy.next(Fault.throttle(1.5), when="createkey")
    proxy.next(Fault.status(403, '{"no": 1}', {"X-Amzn-Type": "Denied"}), when="b=c", after=1)
    assert ask(proxy)[0].status == 200
    answer, _ = ask(proxy, "POST", "/", b"CreateKey")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "1.5")
    assert ask(proxy, "POST", "/", b"CreateKey")[0].status == 200
    assert ask(proxy, path="/?b=c")[0].status == 200
    answer, body = ask(proxy, path="/?b=c")
    assert (answer.status, body, answer.headers["X-Amzn-Type"]) == (403, b'{"no": 1}', "Denied")
    assert proxy.pending == 0
    assert len(upstream.asked) == 3


def test_an_answer_is_lost_but_the_work_was_done(proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.next(Fault.swallow())
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(proxy, "POST", "/once")
    assert upstream.asked == ["POST /once"]
    proxy.next(Fault.swallow(hang=True))
    with pytest.raises(TimeoutError):
        ask(proxy, "POST", "/twice", timeout=0.2)
    assert upstream.asked == ["POST /once", "POST /twice"]


def test_what_hangs_or_breaks_reaches_nobody(proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.next(Fault.hang())
    with pytest.raises(TimeoutError):
        ask(proxy, timeout=0.2)
    proxy.next(Fault.reset(), times=2)
    for _ in range(2):
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            ask(proxy)
    proxy.next(Fault.garbage())
    answer, body = ask(proxy)
    assert answer.status == 200
    with pytest.raises(ValueError):
        json.loads(body)
    assert upstream.asked == []
    proxy.next(Fault.alter(lambda body: body.replace(b'"z"', b'"another"')))
    assert json.loads(ask(proxy)[1])["x"] == "another"
    assert len(upstream.asked) == 1


def test_a_fault_can_last_until_it_is_cleared(proxy: FaultProxy) -> None:
    proxy.next(Fault.status(503), times=None)
    assert {ask(proxy)[0].status for _ in range(3)} == {503}
    proxy.clear()
    assert ask(proxy)[0].status == 200


def test_closing_lets_go_of_whoever_still_waits(upstream: Upstream) -> None:
    proxy = FaultProxy("127.0.0.1", upstream.port)
    proxy.next(Fault.hang())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, proxy)
        while not proxy.seen:
            pass
        proxy.close()
        assert isinstance(waiting.exception(), (OSError, http.client.HTTPException))
    proxy.close()
    with pytest.raises(OSError):
        ask(proxy)


def test_it_speaks_tls_on_both_sides_where_it_has_a_certificate(tmp_path: Path) -> None:
    pem = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = Upstream(context)
    trust = ssl.create_default_context(cafile=str(pem))
    try:
        with FaultProxy("127.0.0.1", server.port, certificate=pem, host_header="vault.test") as one:
            assert one.url.startswith("https://")
            for status in (200, 503):
                connection = http.client.HTTPSConnection("127.0.0.1", one.port, context=trust)
                connection.request("GET", "/")
                answer = connection.getresponse()
                assert answer.status == status
                if status == 200:
                    assert json.loads(answer.read())["host"] == "vault.test"
                connection.close()
                one.next(Fault.status(503))
            distrust = http.client.HTTPSConnection(
                "127.0.0.1", one.port, context=ssl.create_default_context()
            )
            with pytest.raises(ssl.SSLCertVerificationError):
                distrust.request("GET", "/")
            distrust.close()
    finally:
        server.close()


def test_a_grpc_call_passes_or_goes_wrong_as_told() -> None:
    grpc = pytest.importorskip("grpc")
    asked: list[bytes] = []

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc, name-defined]
        def service(self, details: Any) -> Any:
            def answer(request: bytes, context: Any) -> bytes:
                asked.append(request)
                if request == b"nothing":
                    context.abort(grpc.StatusCode.NOT_FOUND, "no such key")
                return dict(context.invocation_metadata())["x-y"].encode() + request

            return grpc.unary_unary_rpc_method_handler(answer)

    pool = ThreadPoolExecutor(4)
    server = grpc.server(pool, handlers=(Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with GrpcFaultProxy(f"127.0.0.1:{port}") as proxy, grpc.insecure_channel(proxy.target) as line:

        def call(request: bytes, method: str = "/kms/Get", timeout: float = 60) -> bytes:
            return line.unary_unary(method)(request, metadata=[("x-y", "z")], timeout=timeout)

        def refusal(request: bytes, timeout: float = 60) -> Any:
            with pytest.raises(grpc.RpcError) as caught:
                call(request, timeout=timeout)
            return caught.value

        assert call(b"\x00\xff") == b"z\x00\xff"
        assert refusal(b"nothing").details() == "no such key"
        proxy.next(Fault.throttle(2.5), when="/Create")
        proxy.next(Fault.status("PERMISSION_DENIED", "not you"), when="get")
        proxy.next(Fault.status(401))
        denied = refusal(b"a")
        assert (denied.code(), denied.details()) == (grpc.StatusCode.PERMISSION_DENIED, "not you")
        assert refusal(b"a").code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as throttled:
            call(b"a", "/kms/Create")
        assert throttled.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        from google.rpc import error_details_pb2
        from grpc_status import rpc_status

        info = error_details_pb2.RetryInfo()
        assert rpc_status.from_call(throttled.value).details[0].Unpack(info)
        assert info.retry_delay.ToTimedelta().total_seconds() == 2.5
        assert asked == [b"\x00\xff", b"nothing"]
        proxy.next(Fault.swallow())
        assert refusal(b"done").code() is grpc.StatusCode.UNAVAILABLE
        proxy.next(Fault.hang())
        assert refusal(b"never", timeout=0.2).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        proxy.next(Fault.reset())
        assert refusal(b"never").code() is grpc.StatusCode.UNAVAILABLE
        proxy.next(Fault.garbage(b"\xff"))
        proxy.next(Fault.alter(lambda body: body[:-1]))
        assert call(b"a") == b"\xff"
        assert call(b"ab") == b"za"
        assert asked[2:] == [b"done", b"ab"]
    server.stop(0).wait()
    pool.shutdown()
