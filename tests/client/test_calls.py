"""What an application does with its keys, through both clients and the real service."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kms_console_client import (
    AsyncClient,
    AsyncEnvelope,
    BadAnswer,
    CannotDecrypt,
    Client,
    DataKeyCache,
    Denied,
    Encrypted,
    Envelope,
    InvalidRequest,
    KmsError,
    NotFound,
    Unauthenticated,
)
from tests.client.conftest import Asker, Service
from tests.peers.faults import Fault, FaultProxy

NORTH = {"tenant": "north"}


def test_an_application_uses_its_keys(service: Service, client: Client) -> None:
    sealed = client.encrypt("invoices", b"Hello", NORTH)
    assert (sealed.version, sealed.algorithm) == (1, "XAES_256_GCM")
    opened = client.decrypt(sealed.key_id, sealed.ciphertext, NORTH)
    assert (opened.plaintext, opened.key_id) == (b"Hello", sealed.key_id)

    data_key = client.generate_data_key("invoices", NORTH, length=48)
    assert len(data_key.plaintext) == 48
    assert client.decrypt("invoices", data_key.ciphertext, NORTH).plaintext == data_key.plaintext

    signed = client.sign("signing", b"a message")
    assert client.verify("signing", b"a message", signed.signature, version=signed.version)
    refused = client.verify("signing", b"another", signed.signature)
    assert not refused and refused.valid is False
    public = client.public_key("signing")
    key = serialization.load_der_public_key(public.public_key)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signed.signature, b"a message", ec.ECDSA(hashes.SHA256()))

    stamped = client.mac("macs", b"a message")
    assert client.verify_mac("macs", b"a message", stamped.mac, version=stamped.version)
    assert not client.verify_mac("macs", b"another", stamped.mac)


def test_an_event_loop_uses_the_same_keys(service: Service, token: str, client: Client) -> None:
    async def story() -> None:
        async with AsyncClient(service.url, token, timeout=60, connections=3) as one:
            texts = [b"%d" % number for number in range(12)]
            sealed = await asyncio.gather(*(one.encrypt("invoices", text, NORTH) for text in texts))
            for text, kept in zip(texts, sealed, strict=True):
                assert client.decrypt("invoices", kept.ciphertext, NORTH).plaintext == text
            data_key = await one.generate_data_key("invoices")
            opened = await one.decrypt("invoices", data_key.ciphertext)
            assert opened.plaintext == data_key.plaintext
            signed = await one.sign("signing", b"a message")
            assert await one.verify("signing", b"a message", signed.signature)
            assert (await one.public_key("signing")).spec == "ECC_NIST_P256"
            stamped = await one.mac("macs", b"a message")
            assert await one.verify_mac("macs", b"a message", stamped.mac)

    asyncio.run(story())
    # A second loop, as asyncio.run makes one each time, is no trouble either.
    asyncio.run(story())


def test_a_batch_gives_each_item_its_own_end(service: Service, token: str, ask: Asker) -> None:
    items = [b"one", (b"two", NORTH), b"x" * 70_000]
    sealed = ask(service.url, token, ("encrypt_batch", ("invoices", items)))
    one, two, wrong = sealed.results
    assert isinstance(one, Encrypted) and isinstance(two, Encrypted)
    assert (type(wrong), wrong.code, wrong.status) == (InvalidRequest, "too_large", 413)
    assert len(sealed.items_root) == 64 and sealed.entry
    with pytest.raises(InvalidRequest):
        sealed.values()
    kept = [one.ciphertext, (two.ciphertext, NORTH), two.ciphertext]
    opened = ask(service.url, token, ("decrypt_batch", ("invoices", kept)))
    assert [item.plaintext for item in opened.results[:2]] == [b"one", b"two"]
    assert isinstance(opened.results[2], CannotDecrypt)


def test_each_family_of_problems_is_an_error_of_its_own(
    service: Service, token: str, ask: Asker
) -> None:
    stranger = service.house.token("stranger")
    for kind, status, code, who, call in (
        (Unauthenticated, 401, "unauthenticated", "kms_nobody", ("mac", ("macs", b""))),
        (NotFound, 404, "not_found", stranger, ("encrypt", ("invoices", b""))),
        (NotFound, 404, "not_found", token, ("encrypt", ("no/such key?", b""))),
        (Denied, 403, "denied", token, ("sign", ("macs", b""))),
        (CannotDecrypt, 400, "cannot_decrypt", token, ("decrypt", ("invoices", b"K\x01"))),
        (InvalidRequest, 413, "too_large", token, ("encrypt", ("invoices", b"x" * 65_537))),
        (InvalidRequest, 400, "invalid", token, ("encrypt", ("invoices", b"", {"n": 1}))),
    ):
        with pytest.raises(kind) as caught:
            ask(service.url, who, call)
        error = caught.value
        assert isinstance(error, KmsError)
        assert (error.status, error.code) == (status, code), error
        assert error.detail and len(error.request_id) == 36
        assert who not in str(error)


@pytest.mark.parametrize("name", ["", ".", "..", "\ud800", "x" * 257])
def test_what_can_not_be_a_keys_name_is_not_sent(
    service: Service, client: Client, name: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.mac(name, b"")
    assert (caught.value.field, caught.value.status) == ("key", 0)


def test_threads_share_a_client_and_its_few_connections(service: Service, token: str) -> None:
    with Client(service.url, token, timeout=60, connections=2) as client:
        with ThreadPoolExecutor(8) as pool:
            sealed = list(pool.map(lambda n: client.encrypt("invoices", b"%d" % n), range(24)))
        items = [one.ciphertext for one in sealed]
        opened = client.decrypt_batch("invoices", items).values()
        assert [one.plaintext for one in opened] == [b"%d" % n for n in range(24)]
        client.close()
        assert client.decrypt("invoices", items[0]).plaintext == b"0"


def test_every_try_of_a_call_carries_one_id_that_stands_in_the_trail(
    service: Service, client: Client
) -> None:
    with pytest.raises(CannotDecrypt) as caught:
        client.decrypt("invoices", b"K\x01 nothing")
    with service.inside() as house:
        entry = house.last_entry(action="decrypt", actor_name="billing")
    assert entry["request_id"] == caught.value.request_id


def test_no_secret_is_printed_pickled_or_raised(service: Service, token: str) -> None:
    client, other = Client(service.url, token), AsyncClient(service.url, token)
    cache = DataKeyCache()
    envelope, task = Envelope(client, "invoices", cache=cache), AsyncEnvelope(other, "invoices")
    data_key = client.generate_data_key("invoices")
    opened = client.decrypt("invoices", data_key.ciphertext)
    envelope.encrypt(b"")
    kept = next(iter(cache._keys.values()))
    for one in (client, other, envelope, task, data_key, opened, cache, kept, client._service):
        shown = repr(one) + str(one)
        assert token not in shown
        assert repr(data_key.plaintext) not in shown and "plaintext=" not in shown
    for one in (client, other, cache, kept, client._service):
        with pytest.raises(TypeError):
            pickle.dumps(one)
        with pytest.raises(TypeError):
            copy.deepcopy(one)
    secret = os.urandom(8).hex()
    with pytest.raises(NotFound) as caught:
        client.encrypt("nothing", secret.encode())
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert token not in told and secret not in told
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.request_id) == (str(caught.value), caught.value.request_id)
    client.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://kms.example",
        "ftp://127.0.0.1",
        "https://user:secret@kms.example",
        "https://kms.example/?token=secret",
        "https://kms.example/#secret",
        "https://kms.example/a/../b",
        "https://kms.example:port",
        "https://kms.example\r\nX: secret",
        "https://",
        "127.0.0.1:8000",
    ],
)
def test_an_address_that_would_not_be_safe_is_refused(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        Client(url, "kms_x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["", "kms x", "kms_x\r\nX-Y: z", "ümlaut", "x" * 201, None])
def test_what_can_not_be_a_token_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError) as caught:
        Client("http://127.0.0.1", wrong)
    assert str(caught.value) == "That is no token."


def test_another_keys_answer_is_not_taken(service: Service, token: str, client: Client) -> None:
    right = client.encrypt("invoices", b"").key_id
    with FaultProxy("127.0.0.1", service.port) as proxy, Client(proxy.url, token) as through:
        # Another id, of the same length.
        proxy.next(
            Fault.alter(lambda body: body.replace(right.encode(), b"0" * 8 + right[8:].encode()))
        )
        with pytest.raises(BadAnswer):
            through.encrypt(right, b"")
