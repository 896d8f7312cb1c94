"""What AWS KMS answers when things go wrong, and settings that can't be right."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keys.backends import registry
from keys.backends.aws import connection
from keys.backends.base import Backend, NoMaterial
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    CannotDecrypt,
    Conflict,
    Invalid,
    KeyServiceError,
    StateForbids,
    StillWaiting,
    Throttled,
    TooLarge,
    Unsupported,
)
from keys.secret import Secret
from tests.backends.keeping import kept
from tests.backends.uses import some_material
from tests.peers.aws import served
from tests.peers.faults import Fault, FaultProxy, in_front_of
from tests.peers.peer import Peer

GCM = "AES_256_GCM"


class Behind:
    """A store behind a proxy, and the same store without it."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        served(peer)
        self.settings = dict(peer.fresh())
        self.plain = peer.backend(self.settings)
        proxy, self.spoiled = in_front_of(self.settings, folder)
        assert isinstance(proxy, FaultProxy)
        self.proxy = proxy
        self.peer = peer
        self.store = peer.backend(self.spoiled)


# One place for all: a client of the SDK takes a while to make.
@pytest.fixture(scope="module")
def place(moto: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    made = Behind(moto, tmp_path_factory.mktemp("proxy"))
    with made.proxy:
        yield made


@pytest.fixture
def behind(place: Behind) -> Behind:
    place.proxy.clear()
    return place


def said(code: str, message: str = "what AWS writes") -> bytes:
    return json.dumps({"__type": code, "message": message}).encode()


@pytest.mark.parametrize(
    ("status", "code", "expected", "words"),
    [
        (400, "ThrottlingException", Throttled, "fewer calls"),
        (429, "", Throttled, "fewer calls"),
        (400, "ExpiredTokenException", BackendRefused, "expired"),
        (400, "UnrecognizedClientException", BackendRefused, "does not know"),
        (400, "AccessDeniedException", BackendRefused, "policy"),
        (403, "SignatureDoesNotMatch", BackendRefused, "clock"),
        (403, "RequestTimeTooSkewed", BackendRefused, "clock"),
        (400, "InvalidSignatureException", BackendRefused, "clock"),
        (403, "", BackendRefused, "refuses"),
        (500, "KMSInternalException", BackendUnavailable, "now"),
        (503, "", BackendUnavailable, "trouble"),
        (400, "KeyUnavailableException", BackendUnavailable, "now"),
        (400, "NotFoundException", NoMaterial, "no such key"),
        (400, "InvalidArnException", BackendError, "InvalidArnException"),
        (400, "DisabledException", StateForbids, "not enabled"),
        (400, "KMSInvalidStateException", StateForbids, "not enabled"),
        (400, "InvalidKeyUsageException", Unsupported, "can't do that"),
        (400, "InvalidCiphertextException", CannotDecrypt, "decrypted"),
        (400, "LimitExceededException", BackendError, "quota"),
        (400, "ConflictException", StillWaiting, "rotating"),
        (400, "AlreadyExistsException", Conflict, "already"),
        (400, "SomethingNewException", BackendError, "SomethingNewException"),
        (418, "", BackendError, "418"),
    ],
)
def test_each_error_of_aws_has_its_own_here(
    behind: Behind, status: int, code: str, expected: type[KeyServiceError], words: str
) -> None:
    behind.proxy.next(Fault.status(status, said(code, "AKIA-not-for-logs") if code else b""))
    with pytest.raises(expected, match=words) as caught:
        behind.store.random(16)
    assert caught.value.code == expected.code
    assert "AKIA" not in str(caught.value)


def test_how_long_aws_asks_to_wait_is_told(behind: Behind) -> None:
    for asked, told in ((7, 7.0), (None, None)):
        behind.proxy.next(Fault.throttle(asked))
        with pytest.raises(Throttled) as caught:
            behind.store.random(16)
        assert caught.value.retry_after == told
    behind.proxy.next(Fault.status(429, b"", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}))
    with pytest.raises(Throttled) as caught:
        behind.store.random(16)
    assert caught.value.retry_after is None


def test_the_sdk_itself_tries_nothing_twice(behind: Behind) -> None:
    behind.proxy.next(Fault.status(503), times=None)
    with pytest.raises(BackendUnavailable):
        behind.store.random(16)
    assert len(behind.proxy.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'\xff\x00{"not": json',
        b'{"KeyMetadata": 7}',
        b'{"KeyMetadata": {"Arn": 1, "KeyId": [], "KeyState": {}}}',
        b'{"KeyMetadata": {"Arn": "a", "KeyId": "b", "KeyState": "Enabled", "CreationDate": "x"}}',
        b'{"KeyMetadata": {"Arn": "a", "KeyId": "b"}}',
        b'{"Plaintext": "not base64!", "Keys": 7, "KeyId": null}',
        b'{"Keys": [7]}',
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error_of_the_store(
    behind: Behind, answer: bytes
) -> None:
    handle = behind.plain.generate(uuid.uuid4(), "AES_256").handle
    sealed = behind.plain.encrypt(handle, GCM, b"dose", b"")
    behind.store.encrypt(handle, GCM, b"x", b"")  # what doesn't change of the key is known
    for call in (
        lambda: behind.store.random(16),
        lambda: behind.store.encrypt(handle, GCM, b"x", b""),
        lambda: behind.store.decrypt(handle, GCM, sealed, b""),
        lambda: behind.store.inspect(handle.partition("#")[0]),
        lambda: behind.store.discover(),
        lambda: behind.store.generate(uuid.uuid4(), "AES_256"),
    ):
        behind.proxy.next(Fault.garbage(answer), times=None)
        with pytest.raises(BackendError):
            call()
        behind.proxy.next(Fault.garbage(answer), times=None)
    assert not behind.store.health().ok


def test_no_answer_and_no_server_are_outages(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind.proxy.next(Fault.reset())
    with pytest.raises(BackendUnavailable):
        behind.store.random(16)
    monkeypatch.setattr(connection, "READ_SECONDS", 0.2)
    store = behind.peer.backend(behind.spoiled)
    behind.proxy.next(Fault.hang())
    with pytest.raises(BackendUnavailable, match="in time"):
        store.random(16)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    nobody = behind.peer.backend({**behind.settings, "endpoint": f"http://127.0.0.1:{port}"})
    with pytest.raises(BackendUnavailable, match="reached"):
        nobody.random(16)
    health = nobody.health()
    assert not health.ok
    assert health.facts["region"] == behind.settings["region"]


# --- answers that are lost after AWS did it


def test_a_rotation_whose_answer_is_lost_is_made_once(behind: Behind) -> None:
    key, label = kept(behind.plain, "AES_256"), uuid.uuid4()
    behind.proxy.next(Fault.swallow(), when="RotateKeyOnDemand")
    with pytest.raises(BackendUnavailable):
        key.generate(label, behind.store)
    found = behind.store.find(label, key.parent)
    assert found is not None
    assert key.generate(label, behind.store) == found
    seen = behind.plain.inspect(found.handle.partition("#")[0])
    assert seen is not None
    assert (len(seen.versions), seen.facts["rotations_used"]) == (2, "1")


def test_a_version_whose_making_lost_an_answer_is_there_once(moto: Peer, tmp_path: Path) -> None:
    there = Behind(moto, tmp_path)
    with there.proxy:
        for count, action in enumerate(("CreateKey", "CreateAlias"), start=1):
            label = uuid.uuid4()
            there.proxy.next(Fault.swallow(), when=f"TrentService.{action}")
            with pytest.raises(BackendUnavailable):
                there.store.generate(label, "HMAC_256")
            made = there.store.generate(label, "HMAC_256")
            assert there.store.find(label) == made
            assert there.plain.find(label) == made
            assert there.plain.discover("", 1).total == count


def test_an_announcement_whose_answer_is_lost_leads_to_one_rotation(behind: Behind) -> None:
    key, label = kept(behind.plain, "AES_256"), uuid.uuid4()
    behind.proxy.next(Fault.swallow(), when="TrentService.TagResource")
    with pytest.raises(BackendUnavailable):
        key.generate(label, behind.store)
    assert key.generate(label, behind.store).handle.endswith("#1")
    seen = behind.plain.observe(key.wanted)
    assert seen is not None
    assert seen.facts["rotations_used"] == "1"


@pytest.mark.exhaustive
def test_an_import_whose_answer_is_lost_is_there(ministack: Peer, tmp_path: Path) -> None:
    there, label, secret = Behind(ministack, tmp_path), uuid.uuid4(), some_material("AES_256")
    with there.proxy:
        there.proxy.next(Fault.swallow(), when="TrentService.ImportKeyMaterial")
        with pytest.raises(BackendUnavailable):
            there.store.import_material(label, "AES_256", secret)
        found = there.store.find(label)
        assert found is not None
        assert there.store.import_material(label, "AES_256", secret) == found
        assert there.plain.discover().total == 1


def test_of_two_processes_that_make_one_version_the_first_wins(behind: Behind) -> None:
    """The second has looked before the first was there, and finds the alias taken."""
    label, others = uuid.uuid4(), behind.peer.backend(behind.settings)
    gate, results = threading.Barrier(2), list[str]()

    def make(store: Backend) -> None:
        gate.wait()
        results.append(store.generate(label, "HMAC_256").handle)

    threads = [threading.Thread(target=make, args=(one,)) for one in (behind.plain, others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    found = behind.store.find(label)
    assert found is not None
    assert found.handle == results[0]


# --- who asks


def test_a_ciphertext_of_another_key_is_not_a_missing_permission(behind: Behind) -> None:
    handle = behind.plain.generate(uuid.uuid4(), "AES_256").handle
    sealed = behind.plain.encrypt(handle, GCM, b"dose", b"")
    elsewhere = "The ciphertext refers to a customer master key that does not exist."
    behind.proxy.next(Fault.status(400, said("AccessDeniedException", elsewhere)), when=".Decrypt")
    with pytest.raises(CannotDecrypt):
        behind.store.decrypt(handle, GCM, sealed, b"")
    denied = "User: arn:aws:iam::1:user/x is not authorized to perform: kms:Decrypt on resource: y"
    behind.proxy.next(Fault.status(400, said("AccessDeniedException", denied)), when=".Decrypt")
    with pytest.raises(BackendRefused):
        behind.store.decrypt(handle, GCM, sealed, b"")
    assert behind.store.decrypt(handle, GCM, sealed, b"") == b"dose"


def test_a_role_is_taken_at_sts_and_again_before_its_time_is_over(behind: Behind) -> None:
    role = "arn:aws:iam::123456789012:role/console"
    store = behind.peer.backend({**behind.spoiled, "role_arn": role})
    soon = (datetime.now(UTC) + timedelta(minutes=4)).isoformat().encode()
    behind.proxy.next(
        Fault.alter(lambda body: _replaced(body, b"Expiration", soon)), when="AssumeRole"
    )
    for times, taken in ((1, 1), (2, 2), (3, 2)):
        assert len(store.random(16)) == 16, times
        assert [seen.asked for seen in behind.proxy.seen].count("POST /") == times + taken
    refused = behind.peer.backend({**behind.spoiled, "role_arn": role})
    denied = (
        b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized</Message></Error>"
        b"</ErrorResponse>"
    )
    behind.proxy.next(Fault.status(403, denied), when="AssumeRole")
    with pytest.raises(BackendRefused, match="AssumeRole"):
        refused.random(16)


def _replaced(body: bytes, tag: bytes, value: bytes) -> bytes:
    before, _, rest = body.partition(b"<%s>" % tag)
    return before + b"<%s>" % tag + value + rest[rest.index(b"</%s>" % tag) :]


def test_without_any_credential_the_store_says_so(
    moto: Peer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    cls = registry.backend_class("aws")
    with pytest.raises(BackendRefused, match="credential"):
        cls(uuid.uuid4(), moto.fresh(), None).random(16)
    with pytest.raises(BackendRefused):
        cls(uuid.uuid4(), {**moto.fresh(), "profile": "nobody"}, None).random(16)
    # The SDK's own chain, here its environment, is what is used where no credential is given.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assert len(cls(uuid.uuid4(), moto.fresh(), None).random(16)) == 16


def test_no_secret_is_written_even_to_the_most_talkative_log(
    place: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        store = place.peer.backend(place.settings)
        handle = store.generate(uuid.uuid4(), "AES_256").handle
        text = b"patient 7 has the flu"
        assert store.decrypt(handle, GCM, store.encrypt(handle, GCM, text, b""), b"") == text
        with pytest.raises(TooLarge):
            store.encrypt(handle, GCM, text * 500, b"")
    secret = json.loads(place.peer.credential or b"{}")["secret_access_key"]
    for hidden in (text.decode(), base64.b64encode(text).decode(), secret):
        assert hidden not in caplog.text


# --- settings


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"region": ""}, "region"),
        ({"region": "Frankfurt"}, "region"),
        ({"region": "eu-central-1/../x"}, "region"),
        ({"region": 7}, "region"),
        ({"endpoint": "http://kms.example.org"}, "endpoint"),
        ({"endpoint": "https://user:pass@kms.example.org"}, "endpoint"),
        ({"endpoint": "https://kms.example.org/path"}, "endpoint"),
        ({"endpoint": "ftp://127.0.0.1"}, "endpoint"),
        ({"endpoint": "https://[broken"}, "endpoint"),
        ({"profile": "a b"}, "profile"),
        ({"role_arn": "arn:aws:iam::1:role/x"}, "role_arn"),
        ({"account": "1"}, "account"),
    ],
)
def test_a_setting_that_cannot_be_right_is_named(wrong: dict[str, Any], named: str) -> None:
    cls = registry.backend_class("aws")
    cls.check_settings({"region": "eu-central-1", "endpoint": "https://kms.example.org/"})
    with pytest.raises(Invalid, match=named):
        cls.check_settings({"region": "eu-central-1", **wrong})


@pytest.mark.parametrize(
    "written",
    [
        b"not json at all: hunter2",
        b"\xff\xfe",
        b"[]",
        b'{"access_key_id": "hunter2"}',
        b'{"access_key_id": "hunter2", "secret_access_key": ""}',
        b'{"access_key_id": "hunter2", "secret_access_key": 7}',
        b'{"access_key_id": "a", "secret_access_key": "hunter2", "region": "x"}',
        b'{"access_key_id": "a", "secret_access_key": "hunter2", "session_token": 7}',
    ],
)
def test_a_credential_that_cannot_be_read_is_refused_and_not_repeated(written: bytes) -> None:
    cls = registry.backend_class("aws")
    with pytest.raises(Invalid, match="access_key_id") as caught:
        cls(uuid.uuid4(), {"region": "eu-central-1"}, Secret(written))
    assert "hunter2" not in str(caught.value)


def test_an_access_key_and_a_profile_together_are_refused(moto: Peer) -> None:
    with pytest.raises(Invalid, match="not both"):
        moto.backend({**moto.fresh(), "profile": "somebody"})
