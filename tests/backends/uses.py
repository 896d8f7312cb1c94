"""Every use a key can be put to, as the contract's tests put it: what fits, and what doesn't.

`gaps` are words of tests.peers.peer.GAPS: what the server under test does not do as its model does.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from keys.algorithms import ALGORITHMS, SPECS, MessageType, Usage
from keys.backends import materials, registry
from keys.backends.base import Backend, Material, Parent
from keys.errors import CannotDecrypt, Invalid, StillWaiting, Unsupported
from keys.secret import Secret

AAD = b"header and context"
MESSAGE = b"diagnosis"

NO_GAPS: frozenset[str] = frozenset()

# The specs that the console's own defaults stand on; a store in a cloud may lack some.
COMMON = ("AES_256", "HMAC_256", "RSA_2048", "ECC_NIST_P256")

# What takes long: making RSA-4096, and each signature of SLH-DSA's small sets.
SLOW = {"RSA_3072", "RSA_4096", "SLH_DSA_SHA2_128S", "SLH_DSA_SHA2_192S", "SLH_DSA_SHA2_256S"}
EVERY_SPEC = [
    pytest.param(name, marks=pytest.mark.exhaustive if name in SLOW else ()) for name in SPECS
]


def aad_of(algorithm: str) -> bytes:
    """Associated data: a token may have no way to bind a label to RSA-OAEP."""
    return b"" if algorithm.startswith("RSA") else AAD


def some_material(spec: str) -> Secret:
    """Fresh material of a spec in the form that an import takes."""
    row = SPECS[spec]
    if row.asymmetric:
        return materials.new_pair(row)[0]
    return Secret(hashlib.shake_256(uuid.uuid4().bytes).digest(row.bits // 8))


def message_of(algorithm: str, message: bytes, kind: MessageType, public_key: bytes) -> bytes:
    """What is handed over to be signed, computed here and not by the store."""
    if kind is MessageType.DIGEST:
        return hashlib.new(ALGORITHMS[algorithm].digest, message).digest()
    if kind is MessageType.EXTERNAL_MU:
        return mu_of(public_key, message)
    return message


def mu_of(public_key: bytes, message: bytes, context: bytes = b"") -> bytes:
    """ML-DSA's mu (FIPS 204, algorithm 7, line 6) from a SubjectPublicKeyInfo."""
    key = materials.load_public_key(public_key)
    raw = key.public_bytes_raw()  # type: ignore[union-attr]
    framed = b"\x00" + bytes([len(context)]) + context + message
    return hashlib.shake_256(hashlib.shake_256(raw).digest(64) + framed).digest(64)


def is_remote(store: Backend) -> bool:
    """Whether a store is elsewhere and keeps states of its own: each call is a request."""
    return registry.KINDS[store.kind].remote


def offers(store: Backend, *specs: str) -> None:
    """Skip the test where the store does not say that it has all of `specs`."""
    for spec in specs:
        if spec not in store.capabilities().algorithms:
            pytest.skip(f"This {registry.KINDS[store.kind].label} has no {spec}")


def some_spec(store: Backend) -> str:
    """Return a secret's spec where the store has one, else a pair's."""
    offered = store.capabilities().algorithms
    return next(spec for spec in ("AES_256", "ECC_NIST_P256", "RSA_2048") if spec in offered)


def usages(store: Backend, spec: str, gaps: frozenset[str] = NO_GAPS) -> tuple[Usage, ...]:
    """What this store can make keys of a spec for."""
    offered = store.capabilities().algorithms[spec]
    return tuple(
        usage
        for usage in SPECS[spec].usages
        if SPECS[spec].algorithms_for(usage, offered)
        and not (usage is Usage.KEY_AGREEMENT and "agreement" in gaps)
    )


def algorithms(
    store: Backend, spec: str, usage: Usage, gaps: frozenset[str] = NO_GAPS
) -> list[str]:
    """This store's algorithms for one purpose of a spec, default first."""
    names = SPECS[spec].algorithms_for(usage, store.capabilities().algorithms[spec])
    return [name for name in names if not ("rsa" in gaps and name.startswith("RSASSA_PSS"))]


def destroyed(store: Backend, *handles: str) -> bool:
    """Destroy a key's versions; False where the store waits, as it says, for a date in its window."""
    try:
        if len(handles) == 1:
            store.destroy(handles[0])
        else:
            store.destroy_all(handles)
    except StillWaiting as error:
        offered = store.capabilities()
        assert not offered.destroys_at_once
        assert offered.window is not None
        now, day = datetime.now(UTC), timedelta(days=1)
        if error.until is not None:
            assert now < error.until <= now + day * (offered.window[1] + 1)
        return False
    return True


_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"


def foreign(handle: str) -> list[str]:
    """Handles or references of the same form that name nothing: another key, another version."""
    run = _UUID if re.search(_UUID, handle) else r"[0-9a-f]{8,}"
    other = re.sub(run, _another, handle)
    assert other != handle
    numbered = re.sub(r"(?<![0-9a-f])\d{1,3}$", "98765", other)
    return list(dict.fromkeys((other, numbered)))


def _another(run: re.Match[str]) -> str:
    return str(uuid.uuid4()) if "-" in run[0] else secrets.token_hex(len(run[0]))[: len(run[0])]


def check_use(
    store: Backend,
    spec: str,
    usage: Usage,
    material: Material,
    gaps: frozenset[str] = NO_GAPS,
    *,
    afresh: bool = False,
) -> None:
    """Use material in every way that this store offers for its purpose.

    A store may fix a key's algorithm for ever; with `afresh` the other ones are used with keys that
    are made for them.
    """
    for number, algorithm in enumerate(algorithms(store, spec, usage, gaps)):
        check = _CHECKS[usage]
        try:
            check(store, spec, material, algorithm, gaps)
        except Unsupported:
            if number == 0 or not is_remote(store):
                raise
            if afresh:
                check(store, spec, made_for(store, spec, usage, algorithm), algorithm, gaps)


def made_for(store: Backend, spec: str, usage: Usage, algorithm: str) -> Material:
    """Make material for one algorithm, as a store needs to know that fixes it for ever."""
    parent = Parent(uuid.uuid4(), "invoices", algorithm) if is_remote(store) else None
    return store.generate(uuid.uuid4(), spec, usage=usage, parent=parent)


@dataclass(frozen=True)
class Attempts:
    """Calls that use material again: each fails where its use is refused, or gives a wrong answer.

    `protect` and `read` need the store; `open` what a public key is enough for.
    """

    protect: list[Callable[[], None]] = field(default_factory=list)
    read: list[Callable[[], None]] = field(default_factory=list)
    open: list[Callable[[], None]] = field(default_factory=list)

    @property
    def closed(self) -> list[Callable[[], None]]:
        return [*self.protect, *self.read]

    @property
    def all(self) -> list[Callable[[], None]]:
        return [*self.closed, *self.open]


def attempts(
    store: Backend, spec: str, usage: Usage, material: Material, gaps: frozenset[str] = NO_GAPS
) -> Attempts:
    """Use material now, and return how it can be used again."""
    algorithm, handle = algorithms(store, spec, usage, gaps)[0], material.handle
    if usage is Usage.ENCRYPT_DECRYPT:
        aad = aad_of(algorithm)
        sealed = store.encrypt(handle, algorithm, MESSAGE, aad)

        def encrypt() -> None:
            assert store.encrypt(handle, algorithm, MESSAGE, aad)

        def decrypt() -> None:
            assert store.decrypt(handle, algorithm, sealed, aad) == MESSAGE

        # With the public key anybody can encrypt: a store may do that without asking, or refuse it.
        return Attempts([] if SPECS[spec].asymmetric else [encrypt], [decrypt])
    if usage is Usage.SIGN_VERIFY:
        signature = store.sign(handle, algorithm, MESSAGE)

        def sign() -> None:
            assert store.sign(handle, algorithm, MESSAGE)

        def verify() -> None:
            assert store.verify(handle, algorithm, MESSAGE, signature)

        return Attempts([sign], [], [verify])
    assert usage is Usage.GENERATE_VERIFY_MAC, "other purposes are checked by check_use"
    tag = store.mac(handle, algorithm, MESSAGE)

    def mac() -> None:
        assert store.mac(handle, algorithm, MESSAGE) == tag

    def verify_mac() -> None:
        assert store.verify_mac(handle, algorithm, MESSAGE, tag)
        assert not store.verify_mac(handle, algorithm, b"another", tag)
        assert not store.verify_mac(handle, algorithm, MESSAGE, tag[:-1])

    return Attempts([mac], [verify_mac])


def _encrypts(
    store: Backend, spec: str, material: Material, algorithm: str, gaps: frozenset[str]
) -> None:
    aad = aad_of(algorithm)
    sealed = store.encrypt(material.handle, algorithm, MESSAGE, aad)
    again = store.encrypt(material.handle, algorithm, MESSAGE, aad)
    assert (sealed == again) == ALGORITHMS[algorithm].deterministic
    assert store.decrypt(material.handle, algorithm, sealed, aad) == MESSAGE
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    whole = [changed, sealed[:-1], sealed + b"\x00"]
    for other in ([] if "sealing" in gaps else whole) + [b"", bytes(len(sealed))]:
        with pytest.raises(CannotDecrypt):
            store.decrypt(material.handle, algorithm, other, aad)


def _signs(
    store: Backend, spec: str, material: Material, algorithm: str, gaps: frozenset[str]
) -> None:
    assert material.public_key is not None
    for kind in ALGORITHMS[algorithm].messages:
        if kind is MessageType.DIGEST and "digests" in gaps:
            continue
        message = message_of(algorithm, MESSAGE, kind, material.public_key)
        signature = store.sign(material.handle, algorithm, message, message_type=kind)
        # However it was signed, it is a signature of the message.
        assert store.verify(material.handle, algorithm, MESSAGE, signature)
        assert store.verify(material.handle, algorithm, message, signature, message_type=kind)
        assert not store.verify(material.handle, algorithm, b"another", signature)
        for wrong in (b"", signature[:-1], signature + b"\x00", bytes(len(signature))):
            assert not store.verify(material.handle, algorithm, MESSAGE, wrong)
        if kind is not MessageType.MESSAGE:
            for wrong in (b"", message[:-1], message + b"\x00"):
                with pytest.raises(Invalid):
                    store.sign(material.handle, algorithm, wrong, message_type=kind)
                with pytest.raises(Invalid):
                    store.verify(material.handle, algorithm, wrong, signature, message_type=kind)
    for kind in set(MessageType) - set(ALGORITHMS[algorithm].messages):
        with pytest.raises(Invalid):
            store.sign(material.handle, algorithm, bytes(64), message_type=kind)


def _macs(
    store: Backend, spec: str, material: Material, algorithm: str, gaps: frozenset[str]
) -> None:
    tag = store.mac(material.handle, algorithm, MESSAGE)
    assert len(tag) == materials.HASHES[ALGORITHMS[algorithm].digest].digest_size
    assert tag == store.mac(material.handle, algorithm, MESSAGE)
    assert store.verify_mac(material.handle, algorithm, MESSAGE, tag)
    assert not store.verify_mac(material.handle, algorithm, b"another", tag)
    for wrong in (b"", tag[:-1], tag + b"\x00", bytes(len(tag)), tag[::-1]):
        assert not store.verify_mac(material.handle, algorithm, MESSAGE, wrong)
    try:
        of_nothing = store.mac(material.handle, algorithm, b"")
    except Unsupported:
        assert is_remote(store), "only a service may have a least length"
    else:
        assert store.verify_mac(material.handle, algorithm, b"", of_nothing)


def _wraps(
    store: Backend, spec: str, material: Material, algorithm: str, gaps: frozenset[str]
) -> None:
    try:
        odd = store.wrap(material.handle, algorithm, b"a key of 17 bytes")
    except Unsupported as error:
        # SoftHSM pads AES-KWP wrongly, and its store says what lengths it takes instead.
        if "whole 8 bytes" not in error.detail:
            raise
    else:
        assert store.unwrap(material.handle, algorithm, odd) == b"a key of 17 bytes"
    for target in (bytes(range(16)), bytes(range(32))):
        wrapped = store.wrap(material.handle, algorithm, target)
        assert target not in wrapped
        assert store.unwrap(material.handle, algorithm, wrapped) == target
    changed = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
    for other in (changed, wrapped[:-1], wrapped + bytes(8), b"", bytes(len(wrapped))):
        with pytest.raises(CannotDecrypt):
            store.unwrap(material.handle, algorithm, other)


def _agrees(
    store: Backend, spec: str, material: Material, algorithm: str, gaps: frozenset[str]
) -> None:
    assert material.public_key is not None
    other, peer = materials.new_pair(SPECS[spec])
    secret = store.agree(material.handle, algorithm, peer)
    assert secret == materials.agreed(SPECS[spec], other, material.public_key)
    assert any(secret)
    foreign = "ECC_NIST_P384" if spec != "ECC_NIST_P384" else "ECC_NIST_P256"
    for wrong in (b"", peer[:-1], b"\x00" * len(peer), materials.new_pair(SPECS[foreign])[1]):
        with pytest.raises(Invalid):
            store.agree(material.handle, algorithm, wrong)


def _decapsulates(
    store: Backend, spec: str, material: Material, algorithm: str, gaps: frozenset[str]
) -> None:
    assert material.public_key is not None
    secret, ciphertext = materials.encapsulate(SPECS[spec], material.public_key)
    assert len(secret) == 32
    assert store.decapsulate(material.handle, algorithm, ciphertext) == secret
    forged = store.decapsulate(material.handle, algorithm, bytes(len(ciphertext)))
    assert len(forged) == 32  # implicit rejection
    assert forged != secret
    for wrong in (b"", ciphertext[:-1], ciphertext + b"\x00"):
        with pytest.raises(CannotDecrypt):
            store.decapsulate(material.handle, algorithm, wrong)


def _derives(
    store: Backend, spec: str, material: Material, algorithm: str, gaps: frozenset[str]
) -> None:
    def derived(salt: bytes = b"salt", info: bytes = b"info", length: int = 48) -> bytes:
        return store.derive(material.handle, algorithm, salt=salt, info=info, length=length)

    assert len(derived()) == 48
    assert derived() == derived()
    assert derived(length=16) == derived()[:16]
    assert len({derived(), derived(salt=b""), derived(info=b""), derived(info=b"other")}) == 4
    for length in (0, -1, 255 * 64 + 1):
        with pytest.raises(Invalid):
            derived(length=length)


_CHECKS = {
    Usage.ENCRYPT_DECRYPT: _encrypts,
    Usage.SIGN_VERIFY: _signs,
    Usage.GENERATE_VERIFY_MAC: _macs,
    Usage.WRAP_UNWRAP: _wraps,
    Usage.KEY_AGREEMENT: _agrees,
    Usage.KEY_ENCAPSULATION: _decapsulates,
    Usage.DERIVE_KEY: _derives,
}
