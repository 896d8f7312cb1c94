"""Places outside the house: a folder, a bucket with Object Lock, a webhook."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import os
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audit.errors import PlaceError, PlaceMissing, PlaceUnavailable
from audit.places import Place, open_place
from audit.places.base import GET_LIMIT
from tests.audit.receivers import Authority, Hook
from tests.peers.peer import Peer

_numbers = itertools.count(1)
SECRET = b"between you and me, nobody else"


@pytest.fixture
def bucket(moto: Peer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new bucket with Object Lock, on moto."""
    return _bucket(moto, monkeypatch, locked=True)


def _bucket(moto: Peer, monkeypatch: pytest.MonkeyPatch, *, locked: bool) -> str:
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret-of-anybody")
    endpoint = moto.fresh()["endpoint"]
    name = f"trail-{os.getpid()}-{next(_numbers)}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=locked)
    client.close()
    return f"s3://{name}/some/where?endpoint={endpoint}&region=us-east-1"


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        yield open_place(f"file://{tmp_path}/place")
    else:
        yield open_place(request.getfixturevalue("bucket"))


def test_what_was_put_is_read_back(place: Place, tmp_path: Path) -> None:
    long = tmp_path / "long"
    long.write_bytes(os.urandom(3_000_000))

    place.put("checkpoints/1", b"a note\n")
    place.put("bundles/0-4095.jsonl", long)

    assert place.get("checkpoints/1") == b"a note\n"
    pieces = list(place.read("bundles/0-4095.jsonl"))
    assert b"".join(pieces) == long.read_bytes()
    assert len(pieces) > 1
    assert place.names() == ["bundles/0-4095.jsonl", "checkpoints/1"]
    assert place.names("bundles/") == ["bundles/0-4095.jsonl"]


def test_what_is_kept_is_not_overwritten_unless_that_was_asked_for(place: Place) -> None:
    place.put("latest", b"first")
    place.put("latest", b"first")  # a repeated call, after a crash: no harm

    with pytest.raises(PlaceError, match="not overwritten"):
        place.put("latest", b"second")
    assert place.get("latest") == b"first"

    place.put("latest", b"second", replace=True)
    assert place.get("latest") == b"second"


def test_a_name_that_is_not_there_is_told_apart(place: Place) -> None:
    with pytest.raises(PlaceMissing):
        place.get("nothing")
    with pytest.raises(PlaceMissing):
        place.hold("nothing", True)
    assert place.names() == []


@pytest.mark.parametrize(
    "name", ["", "/x", "../x", "a/../b", ".x", "a//b", "a b", "é", "x\n", "a/"]
)
def test_a_name_can_not_lead_elsewhere(place: Place, name: str) -> None:
    for call in (lambda: place.put(name, b""), lambda: place.get(name)):
        with pytest.raises(PlaceError):
            call()


def test_what_does_not_fit_into_memory_is_not_read_at_once(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", GET_LIMIT + 1)
    with pytest.raises(PlaceError, match="too long"):
        place.get("huge")


# --- a folder


def test_a_folders_files_are_whole_and_nobodys_to_write(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}/new/folder")
    assert not place.enforces
    place.put("a/b", b"x", retain_until=datetime.now(UTC) + timedelta(days=1), hold=True)

    written = tmp_path / "new" / "folder" / "a" / "b"
    assert stat.S_IMODE(written.stat().st_mode) == 0o440
    assert [path.name for path in written.parent.iterdir()] == ["b"]


def test_half_a_file_of_a_killed_process_is_no_name(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}")
    (tmp_path / ".0011223344556677").write_bytes(b"half")
    assert place.names() == []


def test_a_folder_that_can_not_be_used_is_a_placeerror(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    place = open_place(f"file://{tmp_path}/file")
    with pytest.raises(PlaceError, match="folder can't be used"):
        place.put("x", b"")
    with pytest.raises(PlaceError, match="can't be read"):
        open_place(f"file://{tmp_path}").put("x", tmp_path / "not-there")


def test_what_is_there_already_is_made_durable_before_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process killed between giving the name and flushing it left it so."""
    place = open_place(f"file://{tmp_path}/place")
    place.put("a/b", b"x")
    flushed: list[str] = []
    flush = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    place.put("a/b", b"x")
    wanted = {tmp_path, *(tmp_path / one for one in ("place", "place/a", "place/a/b"))}
    assert wanted == {Path(one) for one in flushed}


# --- a bucket


def _client(url: str) -> Any:
    import boto3

    endpoint = url.partition("endpoint=")[2].partition("&")[0]
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")


def _object(url: str, key: str) -> dict[str, Any]:
    bucket = url.removeprefix("s3://").partition("/")[0]
    return {"Bucket": bucket, "Key": f"some/where/{key}"}


def test_a_bucket_retains_in_compliance_mode(bucket: str) -> None:
    place = open_place(bucket)
    until = datetime.now(UTC) + timedelta(days=30)
    place.put("bundle", b"entries", retain_until=until)

    client = _client(bucket)
    found = client.head_object(**_object(bucket, "bundle"))
    assert found["ObjectLockMode"] == "COMPLIANCE"
    assert found["ObjectLockRetainUntilDate"] == until.replace(microsecond=0)

    # The same bundle again, to be kept for longer: no second object, a later date.
    place.put("bundle", b"entries", retain_until=until + timedelta(days=5))
    found = client.head_object(**_object(bucket, "bundle"))
    assert found["ObjectLockRetainUntilDate"] == until.replace(microsecond=0) + timedelta(days=5)
    versions = client.list_object_versions(Bucket=_object(bucket, "")["Bucket"])["Versions"]
    assert len(versions) == 1
    client.close()


def test_a_bucket_holds_and_releases(bucket: str) -> None:
    place = open_place(bucket)
    client = _client(bucket)

    def status() -> str:
        return str(client.get_object_legal_hold(**_object(bucket, "b"))["LegalHold"]["Status"])

    place.put("b", b"entries", hold=True)
    assert status() == "ON"
    place.hold("b", False)
    assert status() == "OFF"
    place.hold("b", True)
    assert status() == "ON"
    client.close()


def test_a_bucket_without_object_lock_keeps_nothing_that_must_be_locked(
    moto: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place(_bucket(moto, monkeypatch, locked=False))
    with pytest.raises(PlaceError):
        place.put("b", b"entries", retain_until=datetime.now(UTC) + timedelta(days=1))


def test_a_bucket_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret-of-anybody")
    monkeypatch.setattr("audit.places.s3.ATTEMPTS", 1)
    place = open_place("s3://b/p?endpoint=http://127.0.0.1:9&region=r")
    with pytest.raises(PlaceUnavailable) as caught:
        place.put("x", b"")
    assert "127.0.0.1" not in str(caught.value)


def test_a_bucket_that_does_not_exist_will_not_either(moto: Peer, bucket: str) -> None:
    with pytest.raises(PlaceError):
        open_place(bucket.replace("s3://trail", "s3://other")).put("x", b"")


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of a bucket's user, and no patience."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret-of-anybody")
    monkeypatch.setattr("audit.places.s3.ATTEMPTS", 1)
    monkeypatch.setattr("audit.places.s3.READ_SECONDS", 0.2)


def test_a_bucket_that_does_not_answer_may_later(somebody: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        place = open_place(f"s3://b/p?endpoint=http://127.0.0.1:{port}&region=r")
        with pytest.raises(PlaceUnavailable, match="ReadTimeoutError"):
            place.put("x", b"data")


def test_a_bucket_whose_certificate_nobody_vouches_for_may_get_another(
    somebody: None, tmp_path: Path
) -> None:
    hook = Hook(Authority.made(tmp_path / "ca").server_context())
    try:
        with pytest.raises(PlaceUnavailable, match="SSLError"):
            open_place(f"s3://b/p?endpoint={hook.url('')}&region=r").get("x")
    finally:
        hook.kill()


def test_a_proxy_that_is_away_may_come_back(
    somebody: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    place = open_place("s3://b/p?endpoint=https://s3.example.org&region=r")
    with pytest.raises(PlaceUnavailable, match="ProxyConnectionError"):
        place.get("x")


def test_a_connection_that_takes_too_long_may_not_later(
    somebody: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.places.s3.CONNECT_SECONDS", 0.2)
    # A backlog that is full lets nobody in: the connection is neither made nor refused.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        try:
            place = open_place(f"s3://b/p?endpoint=http://127.0.0.1:{address[1]}&region=r")
            with pytest.raises(PlaceUnavailable, match="ConnectTimeoutError"):
                place.get("x")
        finally:
            for one in waiting:
                one.close()


@pytest.mark.parametrize(
    "endpoint",
    ["http://192.0.2.1", "http://s3.example.org", "ftp://127.0.0.1", "nonsense", "http://"],
)
def test_a_bucket_without_tls_is_on_this_machine(endpoint: str) -> None:
    with pytest.raises(PlaceError, match="endpoint"):
        open_place(f"s3://b/p?endpoint={endpoint}&region=r")


def test_the_sdks_own_settings_name_no_endpoint_without_tls(
    somebody: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://192.0.2.1")
    with pytest.raises(PlaceError, match="needs https"):
        open_place("s3://b/p?region=r").put("x", b"data")


# --- a webhook


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def shared_secret(settings: Any) -> None:
    settings.AUDIT_WEBHOOK_SECRET = "whsec_" + base64.b64encode(SECRET).decode()


def test_a_webhook_gets_signed_json(hook: Hook) -> None:
    place = open_place(hook.url("/hook?tenant=7"))
    place.put("checkpoint", "— a note\n".encode())
    place.put("raw", b"\xff\x00")

    note, raw = hook.requests
    assert note.target == "/hook?tenant=7"
    digest = hashlib.sha256("— a note\n".encode()).hexdigest()
    assert note.json == {"name": "checkpoint", "sha256": digest, "text": "— a note\n"}
    assert base64.b64decode(raw.json["data"]) == b"\xff\x00"
    signed = f"{note.headers['webhook-id']}.{note.headers['webhook-timestamp']}.".encode()
    expected = hmac.digest(SECRET, signed + note.body, "sha256")
    assert note.headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()


def test_a_repeated_message_has_the_same_id(hook: Hook) -> None:
    for data in (b"one", b"one", b"two"):
        open_place(hook.url()).put("x", data)
    first, second, third = (request.headers["webhook-id"] for request in hook.requests)
    assert first == second != third


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Later\r\nRetry-After: 7\r\n\r\n", PlaceUnavailable),
        (b"HTTP/1.1 429 Slow\r\n\r\n", PlaceUnavailable),
        (b"HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:9/\r\n\r\n", PlaceError),
        (b"HTTP/1.1 404 No\r\n\r\n", PlaceError),
        (b"garbage\r\n\r\n", PlaceUnavailable),
        (b"HTTP/1.1 9999999999 No\r\n\r\n", PlaceUnavailable),
        (b"HTTP/1.1 200 Fine\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", PlaceUnavailable),
        (b"", PlaceUnavailable),
    ],
)
def test_only_a_2xx_means_that_it_was_taken(hook: Hook, answer: bytes, error: type) -> None:
    hook.answers = [answer]
    with pytest.raises(error) as caught:
        open_place(hook.url()).put("x", b"y")
    assert len(hook.requests) == 1
    assert str(hook.port) not in str(caught.value)
    if b"Retry-After" in answer:
        assert caught.value.retry_after == 7


def test_a_webhooks_certificate_is_verified(tmp_path: Path) -> None:
    authority = Authority.made(tmp_path / "ca")
    hook = Hook(authority.server_context())
    try:
        with pytest.raises(PlaceUnavailable, match="certificate is refused"):
            open_place(hook.url()).put("x", b"y")
        assert hook.requests == []
        open_place(hook.url(f"/hook?ca={authority.ca}&a=b")).put("x", b"y")
        assert [request.target for request in hook.requests] == ["/hook?a=b"]
    finally:
        hook.kill()


def test_plain_http_stays_on_this_machine() -> None:
    with pytest.raises(PlaceError, match="use https"):
        open_place("http://192.0.2.1/hook").put("x", b"y")


def test_a_webhook_needs_a_secret(settings: Any) -> None:
    settings.AUDIT_WEBHOOK_SECRET = ""
    with pytest.raises(PlaceError, match="KMS_AUDIT_WEBHOOK_SECRET"):
        open_place("https://example.org/hook")


@pytest.mark.parametrize(
    "secret",
    [
        "short",
        "x" * 23,
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_",
        "whsec_not base64",
    ],
)
def test_a_secret_that_could_be_guessed_is_refused(settings: Any, secret: str) -> None:
    settings.AUDIT_WEBHOOK_SECRET = secret
    with pytest.raises(PlaceError, match="KMS_AUDIT_WEBHOOK_SECRET"):
        open_place("https://example.org/hook")


@pytest.mark.parametrize("secret", ["x" * 24, "whsec_" + base64.b64encode(b"x" * 24).decode()])
def test_a_secret_of_24_bytes_will_do(settings: Any, secret: str) -> None:
    settings.AUDIT_WEBHOOK_SECRET = secret
    assert open_place("https://example.org/hook")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.org/x",
        "file://elsewhere/x",
        "file:relative",
        "s3:///prefix",
        "s3://key:secret@bucket/x",
        "s3://bucket/x?secret=1",
        "s3://bucket/a/../b",
        "https://user:word@example.org/",
        "https://[::1/",
        "https:///x",
        "https://example.org:99999/",
    ],
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(PlaceError):
        open_place(url)
