"""Sessions, logins, restarts and other processes: what a token does to those who hold handles."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pkcs11 import Attribute

from keys.algorithms import SPECS, Usage
from keys.backends import materials
from keys.backends.base import NoMaterial
from keys.backends.pkcs11 import keyring
from keys.backends.pkcs11 import module as module_file
from keys.backends.pkcs11.backend import Pkcs11Backend
from keys.backends.pkcs11.connection import Pooled
from keys.backends.pkcs11.passing import passing, secret
from keys.errors import BackendUnavailable, CannotDecrypt, KeyServiceError
from keys.secret import Secret
from tests.backends.test_pkcs11 import another, on_the_token
from tests.hsm import Token

ROOT = Path(__file__).resolve().parent.parent.parent
AAD = b"header and context"


def token_function(softhsm: Token, place: int, *arguments: Any) -> int:
    module = module_file.open_module(str(Path(str(softhsm.settings["module"])).resolve()))
    return module._call(place, *arguments)


def close_all_sessions(hsm: Pkcs11Backend, softhsm: Token) -> None:
    _, token = hsm._connection().connected()
    assert token_function(softhsm, 14, ctypes.c_ulong(token.slot.slot_id)) == 0


def finalize(hsm: Pkcs11Backend, softhsm: Token) -> None:
    assert token_function(softhsm, 1, None) == 0


@pytest.mark.parametrize("disturb", [close_all_sessions, finalize])
def test_use_goes_on_after_the_token_went_away_and_came_back(
    hsm: Pkcs11Backend, softhsm: Token, disturb: Callable[[Pkcs11Backend, Token], None]
) -> None:
    aes = hsm.generate(uuid.uuid4(), "AES_256").handle
    pair = hsm.generate(uuid.uuid4(), "ECC_NIST_P256")
    sealed = hsm.encrypt(aes, "AES_256_GCM", b"before", AAD)
    kwp = hsm.generate(uuid.uuid4(), "AES_256", usage=Usage.WRAP_UNWRAP).handle
    wrapped = hsm.wrap(kwp, "AES_KWP", bytes(32))
    agreeing = hsm.generate(uuid.uuid4(), "ECC_NIST_P256", usage=Usage.KEY_AGREEMENT).handle
    secret_before = hsm.agree(agreeing, "ECDH", pair.public_key or b"")
    disturb(hsm, softhsm)
    assert hsm.decrypt(aes, "AES_256_GCM", sealed, AAD) == b"before"
    disturb(hsm, softhsm)
    assert hsm.find(uuid.UUID(aes[:32])) is not None
    disturb(hsm, softhsm)
    signature = hsm.sign(pair.handle, "ECDSA_SHA_256", b"x")
    assert hsm.verify(pair.handle, "ECDSA_SHA_256", b"x", signature)
    disturb(hsm, softhsm)
    assert hsm.unwrap(kwp, "AES_KWP", wrapped) == bytes(32)
    disturb(hsm, softhsm)
    assert hsm.wrap(kwp, "AES_KWP", bytes(32)) == wrapped
    disturb(hsm, softhsm)
    assert hsm.agree(agreeing, "ECDH", pair.public_key or b"") == secret_before
    disturb(hsm, softhsm)
    assert len(hsm.random(16)) == 16
    disturb(hsm, softhsm)
    assert hsm.generate(uuid.UUID(pair.handle[:32]), "ECC_NIST_P256") == pair
    disturb(hsm, softhsm)
    assert hsm.health().ok
    disturb(hsm, softhsm)
    hsm.destroy(aes)
    with pytest.raises(NoMaterial):
        hsm.decrypt(aes, "AES_256_GCM", sealed, AAD)


def test_a_restart_between_calls_never_lets_one_key_pass_for_another(
    hsm: Pkcs11Backend, softhsm: Token
) -> None:
    handles = [hsm.generate(uuid.uuid4(), "AES_256").handle for _ in range(5)]
    sealed = {one: hsm.encrypt(one, "AES_256_GCM", one.encode(), AAD) for one in handles}
    for gone in handles[:2]:  # so that object handles are dealt out anew
        hsm.destroy(gone)
        finalize(hsm, softhsm)
        for handle in handles[2:]:
            assert hsm.decrypt(handle, "AES_256_GCM", sealed[handle], AAD) == handle.encode()
        with pytest.raises(NoMaterial):
            hsm.decrypt(gone, "AES_256_GCM", sealed[gone], AAD)


def test_a_search_on_a_session_without_login_is_not_taken_for_no_such_key(
    hsm: Pkcs11Backend, softhsm: Token
) -> None:
    material = hsm.generate(uuid.uuid4(), "ECC_NIST_P256")
    with hsm._connection().session() as pooled:
        assert token_function(softhsm, 19, ctypes.c_ulong(pooled.session.handle)) == 0  # C_Logout
    assert hsm.find(uuid.UUID(material.handle[:32])) == material
    hsm.sign(material.handle, "ECDSA_SHA_256", b"x")
    assert len(on_the_token(hsm, uuid.UUID(material.handle[:32]))) == 2


def test_a_wrong_pin_is_tried_once_and_told_without_being_shown(softhsm: Token) -> None:
    wrong = Pkcs11Backend(uuid.uuid4(), softhsm.settings, Secret(b"wrong-pin-0000"))
    health = wrong.health()
    assert not health.ok
    assert "PinIncorrect" in health.detail
    for _ in range(20):  # more than any token allows
        with pytest.raises(BackendUnavailable) as caught:
            wrong.generate(uuid.uuid4(), "AES_256")
        assert "wrong-pin" not in str(caught.value)
    wrong.close()
    right = another(softhsm)
    assert right.health().ok
    right.close()


def test_a_key_store_with_a_wrong_pin_cannot_use_anothers_login(
    hsm: Pkcs11Backend, softhsm: Token
) -> None:
    assert hsm.health().ok
    _, token = hsm._connection().connected()
    by_label = dict(softhsm.settings)
    by_serial = {"module": by_label["module"], "token_serial": token.serial.decode()}
    for settings in (by_label, by_serial):
        wrong = Pkcs11Backend(uuid.uuid4(), settings, Secret(b"wrong-pin-0000"))
        with pytest.raises(BackendUnavailable, match="another PIN"):
            wrong.generate(uuid.uuid4(), "AES_256")
        wrong.close()
        right = Pkcs11Backend(uuid.uuid4(), settings, Secret(softhsm.pin.encode()))
        assert right.health().ok
        right.close()
        assert hsm.health().ok  # closing one logs out none of the others for good


def test_closing_one_key_store_does_not_disturb_another_on_the_token(
    hsm: Pkcs11Backend, softhsm: Token
) -> None:
    handle = hsm.generate(uuid.uuid4(), "AES_256").handle
    for _ in range(3):
        other = another(softhsm)
        other.random(8)
        other.close()
        with pytest.raises(BackendUnavailable):
            other.random(8)
        hsm.encrypt(handle, "AES_256_GCM", b"x", AAD)


def test_more_threads_than_sessions_wait_their_turn(softhsm: Token) -> None:
    store = another(softhsm, sessions=2)
    handle = store.generate(uuid.uuid4(), "HMAC_256").handle
    tags: list[bytes] = []

    def work() -> None:
        tags.extend(store.mac(handle, "HMAC_SHA_256", b"x") for _ in range(100))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tags) == 800
    assert len(set(tags)) == 1
    assert store._connection()._open == 2
    store.close()


def passing_objects(hsm: Pkcs11Backend) -> int:
    """How many objects of sessions there are in this process. SoftHSM shows them to any session."""
    with hsm._connection().managing() as session:
        return len(list(session.get_objects({Attribute.TOKEN: False})))


def test_an_object_of_a_session_can_be_counted(hsm: Pkcs11Backend) -> None:
    """Without this the tests below could count nothing and never fail."""
    with hsm._connection().session() as pooled:
        with passing(lambda: secret(pooled.session, b"somebody's key")):
            assert passing_objects(hsm) == 1
        assert passing_objects(hsm) == 0


def test_eight_threads_wrap_unwrap_and_agree_and_leave_nothing_in_the_token(
    hsm: Pkcs11Backend,
) -> None:
    kwp = hsm.generate(uuid.uuid4(), "AES_256", usage=Usage.WRAP_UNWRAP).handle
    rsa = hsm.generate(uuid.uuid4(), "RSA_2048", usage=Usage.WRAP_UNWRAP).handle
    agreeing = {
        spec: hsm.generate(uuid.uuid4(), spec, usage=Usage.KEY_AGREEMENT)
        for spec in ("ECC_NIST_P521", "X25519")
    }
    aes = hsm.generate(uuid.uuid4(), "AES_256").handle
    pairs = {spec: materials.new_pair(SPECS[spec]) for spec in agreeing}
    wrong: list[object] = []

    def work(number: int) -> None:
        key = bytes([number + 1]) * 32
        for _ in range(30):
            if hsm.unwrap(kwp, "AES_KWP", hsm.wrap(kwp, "AES_KWP", key)) != key:
                wrong.append("kwp")
            sealed = hsm.wrap(rsa, "RSAES_OAEP_SHA_1", key)
            if hsm.unwrap(rsa, "RSAES_OAEP_SHA_1", sealed) != key:
                wrong.append("rsa")
            for bad in (bytes(24), bytes(32)):
                with pytest.raises(CannotDecrypt):
                    hsm.unwrap(kwp, "AES_KWP", bad)
            for spec, made in agreeing.items():
                private, peer = pairs[spec]
                theirs = materials.agreed(SPECS[spec], private, made.public_key or b"")
                if hsm.agree(made.handle, "ECDH", peer) != theirs:
                    wrong.append(spec)
            opened = hsm.decrypt(aes, "AES_256_GCM", hsm.encrypt(aes, "AES_256_GCM", key, b""), b"")
            if opened != key:
                wrong.append("gcm")

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, number) for number in range(8)]:
            done.result()
    assert wrong == []
    assert passing_objects(hsm) == 0


def test_making_and_finding_keys_leaves_nothing_passing_behind(
    hsm: Pkcs11Backend, softhsm: Token
) -> None:
    hsm._keyring._abilities = None
    keyring._tried.clear()  # so that the token is tried out again
    assert hsm.capabilities().algorithms
    for spec, usage in (
        ("AES_128", Usage.WRAP_UNWRAP),
        ("RSA_2048", Usage.WRAP_UNWRAP),
        ("ECC_NIST_P256", Usage.KEY_AGREEMENT),
    ):
        material = hsm.generate(uuid.uuid4(), spec, usage=usage)
        hsm.suspend(material.handle)
        hsm.resume(material.handle)
        assert hsm.find(uuid.UUID(material.handle[:32])) == material
        hsm.destroy(material.handle)
    assert passing_objects(hsm) == 0


def test_where_a_passing_object_cannot_be_destroyed_the_connection_is_given_up(
    hsm: Pkcs11Backend,
) -> None:
    handle = hsm.generate(uuid.uuid4(), "AES_256").handle
    before = hsm._connection().generation

    def act(pooled: Pooled) -> None:
        with passing(lambda: secret(pooled.session, b"somebody's key")) as item:
            item.destroy()  # then the second time fails

    with pytest.raises(BackendUnavailable):
        hsm._keyring.in_session(None, act)
    assert hsm._connection().generation > before
    assert passing_objects(hsm) == 0
    hsm.encrypt(handle, "AES_256_GCM", b"x", AAD)


def reconnect(hsm: Pkcs11Backend, softhsm: Token) -> None:
    """As the backend does it itself: closing sessions under a thread inside the library crashes it."""
    hsm._connection().lost(hsm._connection().generation)


def come_and_go(hsm: Pkcs11Backend, softhsm: Token) -> None:
    """Another key store on the token, by another name, so that it has a connection of its own."""
    _, token = hsm._connection().connected()
    settings = {"module": softhsm.settings["module"], "token_serial": token.serial.decode()}
    passing = Pkcs11Backend(uuid.uuid4(), settings, Secret(softhsm.pin.encode()))
    passing.random(8)
    passing.close()


@pytest.mark.parametrize("disturb", [reconnect, come_and_go])
def test_eight_threads_go_on_while_connections_come_and_go(
    hsm: Pkcs11Backend, softhsm: Token, disturb: Callable[[Pkcs11Backend, Token], None]
) -> None:
    handle = hsm.generate(uuid.uuid4(), "AES_256").handle
    wrong: list[object] = []
    stop = threading.Event()
    done = [0] * 8

    def work(number: int) -> None:
        while not stop.is_set() or done[number] < 50:
            try:
                sealed = hsm.encrypt(handle, "AES_256_GCM", b"x", AAD)
                if hsm.decrypt(handle, "AES_256_GCM", sealed, AAD) != b"x":
                    wrong.append(number)
            except BackendUnavailable:
                continue  # says to try again
            except KeyServiceError as error:
                wrong.append(error)
                return
            done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            disturb(hsm, softhsm)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert min(done) >= 50


# --- other processes

SCRIPT = """
import json, os, sys, uuid
import django
django.setup()
from keys.backends import registry
order = json.loads(sys.argv[1])
store = registry.backend_for(uuid.uuid4(), "pkcs11", order["settings"], "env:TEST_PIN")
material = store.generate(uuid.UUID(order["label"]), order["spec"])
sealed = b""
if order["spec"] == "AES_256":
    sealed = store.encrypt(material.handle, "AES_256_GCM", b"from elsewhere", b"")
print(json.dumps({"handle": material.handle, "check": material.check_value, "sealed": sealed.hex()}))
sys.stdout.flush()
os._exit(9)  # as if killed right after the key was made
"""


@pytest.mark.parametrize("spec", ["AES_256", "ECC_NIST_P256"])
def test_what_a_killed_process_made_is_found_by_its_label(
    hsm: Pkcs11Backend, softhsm: Token, tmp_path: Path, spec: str
) -> None:
    label = uuid.uuid4()
    assert hsm.find(label) is None
    order = json.dumps({"settings": softhsm.settings, "label": str(label), "spec": spec})
    environment = os.environ | softhsm.environment
    environment |= {
        "DJANGO_SETTINGS_MODULE": "kms_console.settings",
        "KMS_DATA": str(tmp_path / "data"),
        "TEST_PIN": softhsm.pin,
    }
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, order],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 9, ran.stderr
    answer = json.loads(ran.stdout)
    material = hsm.find(label)
    assert material is not None
    assert (material.handle, material.check_value) == (answer["handle"], answer["check"])
    assert hsm.generate(label, spec) == material
    if spec == "AES_256":
        sealed = bytes.fromhex(answer["sealed"])
        assert hsm.decrypt(material.handle, "AES_256_GCM", sealed, b"") == b"from elsewhere"


def test_a_process_forked_after_the_module_was_loaded_is_refused_rather_than_hung(
    hsm: Pkcs11Backend,
) -> None:
    assert hsm.health().ok
    child = os.fork()
    if child == 0:
        try:
            module_file.open_module(hsm._configuration.selector.module)
        except BackendUnavailable:
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
