"""A witness: every answer that C2SP tlog-witness asks for, races, restarts, and rude clients."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.checkpoints import notes, signing, vkeys
from audit.errors import NoteError, SignerError, WitnessError
from audit.witness import client, command, judging
from audit.witness.client import Answer
from audit.witness.judging import Judge
from audit.witness.state import name_of
from tests.audit.checkpoints.helpers import ORIGIN, Log, judge_in, serving


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path, 20)


@pytest.fixture
def judge(tmp_path: Path, log: Log) -> Iterator[Judge]:
    judge, state = judge_in(tmp_path / "w", log.vkey())
    yield judge
    state.close()


def cosigned(answer: Answer, judge: Judge, note: notes.Note) -> bool:
    """Whether an answer is this witness's cosignature of the note."""
    assert answer.status == 200, answer
    lines = notes.parse_signatures(answer.body.decode())
    key = vkeys.parse_vkey(judge.vkey())
    (verified,) = notes.verify(note.signed(lines), [key])
    return verified.seconds is not None and verified.seconds > 1_600_000_000


def test_what_grows_is_cosigned_step_by_step(judge: Judge, log: Log) -> None:
    assert cosigned(judge.add_checkpoint(log.request(0, 5)), judge, log.note(5))
    assert cosigned(judge.add_checkpoint(log.request(5, 5)), judge, log.note(5))
    assert cosigned(judge.add_checkpoint(log.request(5, 13)), judge, log.note(13))
    held = judge.checkpoint(name_of(ORIGIN)).body
    note, tree = notes.parse_checkpoint(held)
    assert tree.size == 13
    keys = [vkeys.parse_vkey(judge.vkey()), vkeys.parse_vkey(log.vkey())]
    assert len(notes.verify(note, keys)) == 2


def test_an_old_size_that_is_not_what_it_remembers_is_a_conflict(judge: Judge, log: Log) -> None:
    judge.add_checkpoint(log.request(0, 5))
    for old in (0, 3, 6):
        answer = judge.add_checkpoint(log.request(old, 9))
        assert answer == Answer(409, "text/x.tlog.size", b"5\n")
    # A replay of what it cosigned before rolls nothing back.
    judge.add_checkpoint(log.request(5, 9))
    assert judge.add_checkpoint(log.request(0, 5)).body == b"9\n"
    assert judge.add_checkpoint(log.request(5, 5)).status == 409
    assert notes.parse_checkpoint(judge.checkpoint(name_of(ORIGIN)).body)[1].size == 9


def test_another_log_is_not_cosigned(judge: Judge, log: Log) -> None:
    judge.add_checkpoint(log.request(0, 5))
    log.fork_at(3)
    answer = judge.add_checkpoint(log.request(5, 5))
    assert (answer.status, answer.body) == (409, b"5\n"), "another root at the same size"
    answer = judge.add_checkpoint(log.request(5, 9))
    assert answer.status == 422


def test_a_proof_where_none_may_be_is_wrong(judge: Judge, log: Log) -> None:
    step = notes.encoded(bytes(32)) + "\n"
    for old, size in ((0, 5), (5, 5)):
        body = log.request(old, size).replace(b"\n\n", b"\n" + step.encode() + b"\n", 1)
        assert judge.add_checkpoint(body).status == 422
        judge.add_checkpoint(log.request(0, 5))


def test_unknown_logs_and_unknown_keys_are_refused(judge: Judge, log: Log, tmp_path: Path) -> None:
    other = Log(tmp_path / "other", 20)
    assert judge.add_checkpoint(other.request(0, 5)).status == 403
    body = log.note(5, "example.com/other").text().encode()
    assert judge.add_checkpoint(b"old 0\n\n" + body).status == 404
    wrong = log.note(6).text().partition("\n\n")[2]
    bad = log.note(5).body + "\n" + wrong
    assert judge.add_checkpoint(b"old 0\n\n" + bad.encode()).status == 403
    # A signature by somebody unknown beside the log's own is ignored, and not kept.
    mixed = log.note(5).signed(other.note(5).signatures)
    assert judge.add_checkpoint(b"old 0\n\n" + mixed.text().encode()).status == 200
    held = notes.parse(judge.checkpoint(name_of(ORIGIN)).body)
    assert len(held.signatures) == 2


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\n\n",
        b"old\n\n",
        b"old 01\n\n",
        b"old -1\n\n",
        b"old +1\n\n",
        b"old 5 \n\n",
        b"old  5\n\n",
        b"new 0\n\n",
        b"old 99999999999999999999\n\n",
        b"old 0\nnonsense\n\n",
        b"old 0\nAAAA\n\n",
        b"old 0\n" + (notes.encoded(bytes(32)).encode() + b"\n") * 64 + b"\n",
        b"\xff\n\n",
    ],
)
def test_what_is_not_in_the_protocols_form_is_a_bad_request(
    judge: Judge, log: Log, head: bytes
) -> None:
    assert judge.add_checkpoint(head + log.note(5).text().encode()).status == 400


def test_an_old_size_beyond_the_checkpoints_is_a_bad_request(judge: Judge, log: Log) -> None:
    assert judge.add_checkpoint(log.request(6, 5)).status == 400


@given(st.binary(max_size=200))
def test_garbage_is_a_bad_request_and_nothing_worse(data: bytes) -> None:
    for body in (data, b"old 0\n\n" + data, b"old 0\n" + data):
        with pytest.raises(NoteError):
            judging.parse(body)


def test_of_two_forks_at_once_exactly_one_is_cosigned(tmp_path: Path, log: Log) -> None:
    judge, state = judge_in(tmp_path / "w", log.vkey())
    judge.add_checkpoint(log.request(0, 5))
    for size in range(6, 16):
        requests = [log.request(size - 1, size)]
        fork = list(log.leaves)
        log.fork_at(size - 1)
        requests.append(log.request(size - 1, size))
        forked, log.leaves = list(log.leaves), fork
        with ThreadPoolExecutor(2) as pool:
            barrier = threading.Barrier(2)

            def send(
                body: bytes, barrier: threading.Barrier = barrier, judge: Judge = judge
            ) -> int:
                barrier.wait()
                return judge.add_checkpoint(body).status

            statuses = list(pool.map(send, requests))
        assert sorted(statuses) == [200, 409]
        if statuses[1] == 200:
            log.leaves = forked
    state.close()


def test_it_remembers_over_a_restart_and_shares_its_folder_with_nobody(
    tmp_path: Path, log: Log
) -> None:
    judge, state = judge_in(tmp_path / "w", log.vkey())
    judge.add_checkpoint(log.request(0, 5))
    with pytest.raises(SignerError, match="Another witness"):
        judge_in(tmp_path / "w", log.vkey())
    state.close()
    again, state = judge_in(tmp_path / "w", log.vkey())
    assert again.vkey() == judge.vkey()
    assert again.add_checkpoint(log.request(0, 9)).body == b"5\n"
    state.close()


def test_a_damaged_memory_signs_nothing(tmp_path: Path, log: Log) -> None:
    with serving(tmp_path / "w", log.vkey()) as witness:
        witness.judge.add_checkpoint(log.request(0, 5))
        file = tmp_path / "w/state" / name_of(ORIGIN)
        file.write_text("nonsense")
        with pytest.raises(WitnessError, match="too busy"):
            client.add_checkpoint(witness.url, 5, lambda old: log.proof(old, 9), log.note(9))


# --- over HTTP


def ask(url: str, method: str, path: str, body: bytes | None = None) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers.get_content_type(), answer.read())
    finally:
        connection.close()


def test_the_client_finds_out_what_a_witness_remembers(tmp_path: Path, log: Log) -> None:
    with serving(tmp_path / "w", log.vkey()) as witness:
        asked: list[int] = []

        def submit(old: int, size: int) -> notes.Note:
            def prove(first: int) -> list[bytes]:
                asked.append(first)
                return log.proof(first, size)

            note = log.note(size)
            lines = client.add_checkpoint(witness.url + "/", old, prove, note)
            key = vkeys.parse_vkey(witness.judge.vkey())
            assert len(notes.verify(note.signed(lines), [key])) == 1
            return note

        submit(0, 5)
        submit(0, 9)
        submit(3, 11)
        assert asked == [5, 3, 9]
        with pytest.raises(WitnessError, match="remembers 11 entries, and the checkpoint has 7"):
            submit(0, 7)
        log.fork_at(0)
        with pytest.raises(WitnessError, match="another log of this size"):
            submit(11, 11)
        with pytest.raises(WitnessError, match="does not continue"):
            submit(11, 12)
        assert ask(witness.url, "GET", "/key").body.decode().strip() == witness.judge.vkey()
        held = ask(witness.url, "GET", f"/checkpoints/{name_of(ORIGIN)}")
        assert notes.parse_checkpoint(held.body)[1].size == 11
        for path in ("/", "/checkpoints/", "/checkpoints/../key.pem", "/checkpoints/" + "0" * 64):
            assert ask(witness.url, "GET", path).status == 404


def test_a_witness_that_is_away_or_answers_nonsense_is_an_error_and_no_crash(
    tmp_path: Path, log: Log
) -> None:
    for url in ("http://127.0.0.1:1", "ftp://127.0.0.1", "http://", "http://[", "nonsense"):
        with pytest.raises(WitnessError):
            client.add_checkpoint(url, 0, lambda old: [], log.note(5), 5)
    answers = [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n5\n",
        b"HTTP/1.1 409 C\r\nContent-Type: text/x.tlog.size\r\nContent-Length: 2\r\n\r\nx\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 100_000,
        b"nonsense",
    ]
    for answer in answers:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            thread = threading.Thread(target=_answer_once, args=(listener, answer))
            thread.start()
            with pytest.raises(WitnessError):
                client.add_checkpoint(f"http://127.0.0.1:{port}", 0, lambda old: [], log.note(5))
            thread.join()


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


def test_a_witness_that_hangs_is_given_up(log: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(WitnessError, match="can't be reached"):
            client.add_checkpoint(url, 0, lambda old: [], log.note(5), 0.2)


def test_requests_that_are_too_long_or_say_no_length_are_refused(tmp_path: Path, log: Log) -> None:
    with serving(tmp_path / "w", log.vkey()) as witness:
        address = urlsplit(witness.url)
        for head, status in (
            (b"Content-Length: 999999999\r\n", b"413"),
            (b"Content-Length: 9999999999999999999999\r\n", b"413"),
            (b"", b"411"),
            (b"Content-Length: -1\r\n", b"411"),
            (b"Transfer-Encoding: chunked\r\n", b"411"),
        ):
            with socket.create_connection((address.hostname or "", address.port or 0), 30) as raw:
                raw.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\n" + head + b"\r\n")
                assert raw.recv(65536).split()[1] == status
        assert ask(witness.url, "POST", "/add-checkpoint", log.request(0, 5)).status == 200
        assert ask(witness.url, "POST", "/other", log.request(5, 6)).status == 404


def test_a_witnesss_own_key_is_no_logs_key(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = signing.witness_key(tmp_path / "key.pem", "w").verifier.text()
    assert command.main(["--folder", str(tmp_path / "w"), "--log", key]) == 1
    assert "key of a witness" in capfd.readouterr().err
    assert command.main(["--folder", str(tmp_path / "w")]) == 1
    assert "No log is named" in capfd.readouterr().err


def test_its_name_and_key_stay_what_they_were(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "w")
    assert command.main(["--folder", folder, "--name", "w.example/9", "--key"]) == 0
    first = capfd.readouterr().out
    assert vkeys.parse_vkey(first).name == "w.example/9"
    assert command.main(["--folder", folder, "--key"]) == 0
    assert capfd.readouterr().out == first
    assert command.main(["--folder", folder, "--name", "other", "--key"]) == 1
    assert "This witness is called w.example/9" in capfd.readouterr().err
