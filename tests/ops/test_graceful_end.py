"""The end of a web process: what it accepted is finished, answered and in the log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keys import administration
from kms_console.supervisor import Refusal, command, parts, processes
from kms_console.supervisor.child import Part
from kms_console.supervisor.folder import open_folder
from kms_console.supervisor.house import House as Children
from kms_console.supervisor.house import StopSignals
from kms_console.supervisor.parts import Address
from tests.house import House
from tests.ops.asking import ENCRYPT, soon
from tests.processes import PATIENCE, Process
from tests.shell.running import BASE_DIR, READY, Up, free_port, up_environment

CONNECTIONS = 16


@dataclass
class Client:
    """One connection that is kept, and what became of each request that was sent whole over it."""

    number: int
    port: int
    token: str
    answered: dict[str, int] = field(default_factory=dict)  # request id: status
    cut: list[str] = field(default_factory=list)
    told_to_close: bool = False
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def use(self) -> bool:
        """Send one request; return whether the connection goes on."""
        assert self._reader is not None and self._writer is not None
        if self._reader.at_eof():
            return False  # closed while nothing was under way
        name = f"c{self.number}-{len(self.answered)}"
        self._writer.write(self._request(name))
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
            await self._reader.readexactly(int(length.partition(":")[2]))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.cut.append(name)
            return False
        self.answered[name] = int(head.split()[1])
        self.told_to_close = "connection: close" in head
        return not self.told_to_close

    def _request(self, name: str) -> bytes:
        head = (
            "POST /api/v1/keys/invoices/encrypt HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
            f"X-Request-Id: {name}\r\nContent-Length: {len(ENCRYPT)}\r\n\r\n"
        )
        return head.encode() + ENCRYPT

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()

    async def go_on(self) -> None:
        """Send one request after the other until the server ends the connection."""
        while await self.use():
            pass


def started(house: House, part: Part, name: str = "web") -> Process:
    return Process(list(part.command), {**house.environment}, house.folder / f"{name}.log")


@contextlib.contextmanager
def serving(house: House, port: int, count: int = 1) -> Iterator[list[Process]]:
    """Run web processes as `up` does, each until it ended or the block does."""
    environment = house.environment
    wanted = parts.webs(Address("127.0.0.1", port), environment, count)
    running = [started(house, part, part.name) for part in wanted]
    try:
        for process in running:
            process.wait_for("Uvicorn running on")
        yield running
    finally:
        for process in running:
            process.stop()


async def connected(house: House, port: int, count: int = CONNECTIONS) -> list[Client]:
    clients = [Client(number, port, house.token("billing")) for number in range(count)]
    for client in clients:
        await client.connect()
    return clients


def refused_now(port: int) -> bool:
    with socket.socket() as late:
        late.settimeout(60)
        return late.connect_ex(("127.0.0.1", port)) != 0


def recorded(house: House) -> set[str]:
    return {e["request_id"] for e in house.entries(action="encrypt", outcome="success")}


def test_sixteen_busy_connections_lose_nothing_when_the_server_is_told_to_end(
    house: House,
) -> None:
    port = free_port()

    async def story(server: Process) -> list[Client]:
        clients = await connected(house, port)
        idle = Client(99, port, house.token("billing"))
        await idle.connect()
        load = [asyncio.create_task(client.go_on()) for client in clients]
        await soon(lambda: all(len(client.answered) >= 10 for client in clients))
        server.popen.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*load), PATIENCE)
        assert idle._reader is not None
        assert await idle._reader.read() == b"", "who rests is closed, without a word"
        for client in (idle, *clients):
            await client.close()
        return clients

    with serving(house, port) as (server,):
        clients = asyncio.run(story(server))
        assert server.wait() == -signal.SIGTERM
        assert "Traceback" not in server.text and "ERROR" not in server.text, server.text
    assert refused_now(port)
    assert [client.cut for client in clients] == [[]] * CONNECTIONS
    assert all(client.told_to_close for client in clients)
    answers = [status for client in clients for status in client.answered.values()]
    assert set(answers) == {200}
    answered = {name for client in clients for name in client.answered}
    assert recorded(house) == answered, "each answer has its entry, and nothing else has one"


def test_what_can_not_be_finished_in_time_is_answered_and_recorded(house: House) -> None:
    """A body that does not come holds the server up, until its time is over."""
    port = free_port()
    part = parts.web(Address("127.0.0.1", port), house.environment)
    words = list(part.command)
    words[words.index("--timeout-graceful-shutdown") + 1] = "1"
    server = Process(words, house.environment, house.folder / "web.log")

    async def story() -> bytes:
        client = Client(0, port, house.token("billing"))
        await client.connect()
        assert await client.use()
        assert client._writer is not None and client._reader is not None
        client._writer.write(client._request("late")[: -len(ENCRYPT)])
        await asyncio.sleep(0.2)
        server.popen.send_signal(signal.SIGTERM)
        answer = await client._reader.read()
        await client.close()
        return answer

    try:
        server.wait_for("Uvicorn running on")
        answer = asyncio.run(story())
        assert server.wait() == -signal.SIGTERM
    finally:
        server.stop()
    assert answer.startswith(b"HTTP/1.1 503") and b"retry-after" in answer, server.text
    _, _, body = answer.partition(b"\r\n\r\n")
    assert json.loads(body)["code"] == "unavailable"
    last = house.last_entry(request_id="late")
    assert (last["action"], last["outcome"]) == ("refused_request", "failed")


# --- several web processes


@pytest.mark.parametrize("count", ["2", "64"])
def test_several_web_processes_need_postgresql(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(Refusal, match="needs PostgreSQL"):
        command._check_web_processes(int(count))
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@h/n")
    command._check_web_processes(int(count))


@pytest.mark.parametrize("word", ["0", "-1", "65", "two", "", "1.5", "²"])
def test_a_number_of_web_processes_that_is_none_is_refused(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([f"--web-processes={word}"])
    assert ended.value.code == 2
    assert "is not a number from 1 to 64" in capsys.readouterr().err


def test_one_web_process_is_started_as_ever_and_several_alike() -> None:
    address = Address("127.0.0.1", 8000)
    assert parts.webs(address, {}, 1) == [parts.web(address, {})]
    one, two = parts.webs(address, {}, 2)
    assert (one.name, two.name, one.command) == ("web-1", "web-2", two.command)
    alone = list(parts.web(address, {}).command)
    assert set(alone) - {"uvicorn"} <= set(one.command)
    assert (
        parts.child_environment(open_folder(BASE_DIR / "build"), address, {}, web_processes=2)[
            "KMS_WEB_PROCESSES"
        ]
        == "2"
    )


def test_several_of_a_kind_are_stopped_together(tmp_path: Path) -> None:
    """Each ends only once the other was told to."""
    code = (
        "import os, pathlib, signal, sys, time\n"
        "mine, other = map(pathlib.Path, sys.argv[1:])\n"
        "def told(*_):\n"
        "    mine.touch()\n"
        "    while not other.exists(): time.sleep(0.01)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, told)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(0.01)\n"
    )
    folder, said = open_folder(tmp_path / "data"), list[str]()
    children = Children(folder, StopSignals(), said.append, stop_order=["web", "beat"])
    files = [str(tmp_path / name) for name in ("one", "two")]
    for number, order in ((1, files), (2, files[::-1])):
        words = [sys.executable, "-c", code, *order]
        children.start(Part(f"web-{number}", words, PATIENCE, tmp_path, dict(os.environ)))
    while not all(child.log.read_text() == "up\n" for child in children.children):
        children._tick()
    assert children.stop()
    assert sorted(line.split()[1] for line in said) == ["web-1", "web-2"]


def test_what_an_earlier_run_left_behind_is_found_however_many_web_processes_it_had(
    tmp_path: Path,
) -> None:
    folder = open_folder(tmp_path / "data")
    for name in ("web-2", "web-1", "worker"):
        processes.write_pid_file(folder.run / f"{name}.pid", os.getpid())
    found = [path.stem for path in command._pid_files(folder)]
    assert found[2:6] == ["web", "web-1", "web-2", "beat"]


def test_a_shared_port_is_refused_to_who_does_not_share_it() -> None:
    from kms_console.supervisor.preflight import check_port
    from kms_console.supervisor.shared import listener

    with listener("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listener("127.0.0.1", port), pytest.raises(Refusal, match="is taken"):
            check_port(Address("127.0.0.1", port))
    check_port(Address("127.0.0.1", port))


@pytest.mark.exhaustive
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_two_processes_at_one_port_refuse_a_revoked_token_from_the_next_request_on(
    house: House,
) -> None:
    port = free_port()

    async def story(servers: list[Process]) -> list[Client]:
        clients = await connected(house, port)
        for client in clients:
            assert await client.use()
        revoke = administration.revoke_credential
        caller, credential = house_ada, str(billing.credential_id)
        await asyncio.get_running_loop().run_in_executor(None, revoke, caller, credential)
        for client in clients:
            await client.use()
        # One of the two ends: its connections are closed, the other's go on.
        servers[0].popen.send_signal(signal.SIGTERM)
        await asyncio.get_running_loop().run_in_executor(None, servers[0].wait)
        left = [client for client in clients if await client.use()]
        assert 0 < len(left) < CONNECTIONS, "the kernel dealt them out to both"
        late = Client(99, port, house.token("billing"))
        await late.connect()
        await late.use()
        for client in (late, *clients):
            await client.close()
        return [*clients, late]

    with serving(house, port, 2) as servers:
        house_ada, billing = house.ada, house.billing
        clients = asyncio.run(story(servers))
    for client in clients[:-1]:
        first, *later = client.answered.values()
        assert first == 200 and later and set(later) == {401}, client.answered
    assert list(clients[-1].answered.values()) == [401]
    sources = {entry["source"] for entry in house.entries(action="encrypt")}
    assert sources == {"127.0.0.1"}


@pytest.mark.exhaustive
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_up_with_two_web_processes_starts_one_again_and_stops_both(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_URL", "MATERIAL_DATABASE_URL", "KMS_ROOT_KEY_PATH", "SECRET_KEY"):
        monkeypatch.setenv(name, house.environment[name])
    data, port = tmp_path / "data", free_port()
    kept = {name: house.environment[name] for name in ("DATABASE_URL", "MATERIAL_DATABASE_URL")}
    kept["KMS_ROOT_KEY_PATH"] = house.environment["KMS_ROOT_KEY_PATH"]
    kept["SECRET_KEY"] = house.environment["SECRET_KEY"]
    environment = up_environment() | kept
    monkeypatch.setattr("tests.shell.running.up_environment", lambda: environment)
    up = Up(data, port, "--web-processes", "2")
    try:
        up.wait_for_line(READY)
        webs = [data / "run" / f"web-{number}.pid" for number in (1, 2)]
        pids = [processes.running(path) for path in webs]
        assert None not in pids
        killed = pids[0]
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        up.wait_for_line("web-1 was ended by SIGKILL; starting it again")
        assert up.readiness().http_status == 200, "the other one serves meanwhile"
        while processes.running(webs[0]) in (None, killed):
            assert up.process.poll() is None, up.output
        taken = subprocess.run(
            [sys.executable, "manage.py", "up", "--port", str(port), "--data", str(tmp_path / "x")],
            cwd=BASE_DIR,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"Port {port} on 127.0.0.1 is taken" in taken.stderr
        up.signal(signal.SIGTERM)
        assert up.wait_for_end() == 0, up.output
        stopped = up.stopped()
        assert set(stopped[:2]) == {"web-1", "web-2"} and stopped[-1] == "broker"
        assert [processes.running(path) for path in webs] == [None, None]
        assert "Traceback" not in up.output
    finally:
        if up.process.poll() is None:
            up.process.kill()
            up.wait_for_end()
        for path in (data / "run").glob("*.pid"):
            left = processes.running(path)
            if left is not None:
                processes.signal_group(left, signal.SIGKILL)
