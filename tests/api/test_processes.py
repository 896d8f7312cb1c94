"""The API as real processes serve it, spoken to over 127.0.0.1."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from keys import administration
from tests.api.clients import PROBLEM
from tests.house import House
from tests.parts import missing

pytestmark = pytest.mark.own_door  # real servers
BASE_DIR = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # against hanging, not a measure of speed


class Server:
    """A uvicorn with the whole console in it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def request(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, named)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, told, answer.read()
        finally:
            connection.close()

    def encrypt(self, token: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        content = json.dumps({"plaintext": "QQ=="} if body is None else body).encode()
        status, _, answer = self.request(
            "POST",
            "/api/v1/keys/invoices/encrypt",
            content,
            Authorization=f"Bearer {token}",
            Content_Type="application/json",
            **headers,
        )
        return status, json.loads(answer)


@contextmanager
def serving(house: House) -> Iterator[Server]:
    """Run uvicorn on a port of its own until the block ends."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "kms_console.asgi:application"]
    log = house.folder / f"uvicorn-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--no-access-log"],
            cwd=BASE_DIR,
            env=house.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Server(port)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if server.request("GET", "/healthz")[0] == 200:
                    break
            except OSError:
                pass
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()


def test_one_story_with_curl_and_a_real_server(house: House) -> None:
    curl = shutil.which("curl") or missing("curl", "the Debian package curl")
    token = house.token("billing")
    with serving(house) as server:
        address = f"http://127.0.0.1:{server.port}/api/v1"
        command = [curl, "-sS", "--max-time", "60", "-H", f"Authorization: Bearer {token}"]
        asked = ["--json", '{"plaintext": "aGVsbG8=", "context": {"tenant": "north"}}']
        out = subprocess.run(
            [*command, *asked, f"{address}/keys/invoices/encrypt"], capture_output=True, check=True
        )
        sealed = json.loads(out.stdout)
        assert sealed["key_id"] == str(house.invoices.id)
        body = json.dumps({"ciphertext": sealed["ciphertext"], "context": {"tenant": "north"}})
        out = subprocess.run(
            [*command, "--json", body, f"{address}/keys/invoices/decrypt"],
            capture_output=True,
            check=True,
        )
        assert json.loads(out.stdout)["plaintext"] == "aGVsbG8="
        # In chunks, without an announced length.
        chunked = [*command, *asked, "-H", "Transfer-Encoding: chunked"]
        out = subprocess.run(
            [*chunked, f"{address}/keys/invoices/encrypt"], capture_output=True, check=True
        )
        assert json.loads(out.stdout)["version"] == 1

        # Many at once, more than any other body may have.
        text = "A" * 64 * 1024
        many = json.dumps({"items": [{"plaintext": text}] * 20 + [{"plaintext": text * 2}]})
        status, _, answer = server.request(
            "POST",
            "/api/v1/keys/invoices/encrypt/batch",
            many.encode(),
            Authorization=f"Bearer {token}",
            Content_Type="application/json",
        )
        results = json.loads(answer)["results"]
        assert (status, len(results)) == (200, 21)
        assert [r["error"]["code"] for r in results if "error" in r] == ["too_large"]

        # What falls through to Django: no token, a page, another method.
        status, headers, answer = server.request("POST", "/api/v1/keys/invoices/encrypt", b"{}")
        assert (status, headers["content-type"]) == (401, PROBLEM)
        status, headers, answer = server.request(
            "GET", "/api/v1/keys", Authorization=f"Bearer {token}", Accept="text/html"
        )
        assert status == 200 and b"invoices" in answer
        assert headers["content-type"].startswith("text/html")
        status, headers, answer = server.request(
            "PUT", "/api/v1/keys/invoices/encrypt", b"{}", Authorization=f"Bearer {token}"
        )
        assert (status, json.loads(answer)["code"]) == (405, "method_not_allowed")
        assert headers["allow"] == "POST"
    entries = house.entries(actor_name="billing", action="encrypt")
    assert [(e["door"], e["source"]) for e in entries] == [("rest", "127.0.0.1")] * 3


@pytest.mark.each_database
def test_a_revoked_token_is_refused_at_once_in_every_process(house: House) -> None:
    """PostgreSQL: two servers. SQLite, which has one web process: that and this process."""
    token = house.token("billing")
    servers = 2 if house.database.vendor == "postgresql" else 1
    with ExitStack() as stack:
        running = [stack.enter_context(serving(house)) for _ in range(servers)]
        for server in running:
            assert server.encrypt(token)[0] == 200
        administration.revoke_credential(house.ada, str(house.billing.credential_id))
        for server in running:
            status, answer = server.encrypt(token)
            assert status in (401, 403, 404), answer
            assert "ciphertext" not in answer
    denied = house.entries(actor_name="billing", outcome="denied")
    assert [entry["reason"] for entry in denied] == ["credential_revoked"] * servers


def test_raw_bytes_that_are_no_http_do_not_bring_the_server_down(house: House) -> None:
    token = house.token("billing")
    head = (
        "POST /api/v1/random HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\n"
    )
    bad = [
        head + "Content-Length: x\r\n\r\n{}",
        head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        head + "Content-Length: 99999999999999999999999\r\n\r\n",
        head + "Content-Length: 2000000\r\n\r\n{",
        head + "Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        head + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
        "POST /api/v1/random\r\n\r\n",
        "\x00\x01\x02",
    ]
    with serving(house) as server:
        for text in bad:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
                line.sendall(text.encode("latin-1"))
                line.shutdown(socket.SHUT_WR)
                answer = b""
                while part := line.recv(65536):
                    answer += part
            assert not answer or answer.startswith(b"HTTP/1.1 4"), (text, answer)
        assert server.encrypt(token)[0] == 200
