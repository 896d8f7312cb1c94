"""The contract of a key store: what every backend implements and one suite (tests/backends) checks.

Bytes in, bytes out. A backend knows no callers, no policy and no database of ours except where it
is the store itself. It raises only errors of keys/errors.py: BackendUnavailable where trying again
may help, Unsupported where it never will, CannotDecrypt for any ciphertext it refuses, Invalid for
input that no store could take, NoMaterial for a handle that names nothing here, StateForbids where
the store itself refuses a suspended or deactivated version, BackendError for the rest. Three kinds
of BackendUnavailable say more: Throttled (with the store's own Retry-After), BackendRefused (the
console's credential is expired or may not do this) and StillWaiting (the store does it at a date of
its own). No secret stands in a message. Every method may be called from several threads.

Which uses a version's state allows is decided before a backend is asked (keys.lifecycle). A backend
that can refuse on its own (suspend, deactivate) is a second lock, not the first.
"""

from __future__ import annotations

import abc
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from keys.algorithms import MessageType, Usage
from keys.backends.views import KeyView, Page
from keys.errors import BackendError, Unsupported
from keys.secret import Secret


class NoMaterial(BackendError):
    """The handle names nothing in this key store: destroyed, never made, or another store's."""

    code, title = "no_material", "The key store holds no material under this handle"


class Protection(StrEnum):
    """Where material lives, weakest first."""

    SOFTWARE = "software"
    HSM = "hsm"

    @property
    def rank(self) -> int:
        return list(Protection).index(self)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do here; a probe at enrolment may narrow what its kind could.

    `algorithms` maps a key spec to the algorithms it offers for it, default first.
    """

    algorithms: Mapping[str, tuple[str, ...]]
    imports: frozenset[str] = frozenset()  # specs whose material can be imported
    exports: frozenset[str] = frozenset()  # specs whose material can be made exportable
    destroys_at_once: bool = True  # False: the store has a window of its own
    suspends: bool = False  # True: the store itself can refuse a suspended version
    # The least and the most days that the store itself waits with a destruction; None: not at all.
    window: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Material:
    """One version's material as the store knows it.

    `handle` is opaque and no secret; `check_value` tells whether two handles name the same
    material (hex; for secrets the first bytes of a MAC under the key, for key pairs of a digest of
    the public key; "" where a store can tell neither of a secret it keeps to itself); `public_key`
    is DER SubjectPublicKeyInfo for key pairs, else None.
    """

    handle: str
    check_value: str
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """The key that new material is for, as far as a store that keeps versions together needs it.

    `algorithm` is the key's own, where a store fixes it for ever; `newest` the handle of the newest
    version that has material, "" for the first: what a store compares to see whether an earlier try
    was carried out.
    """

    key: uuid.UUID
    name: str = ""
    algorithm: str = ""
    newest: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a store can be used now; `detail` is one sentence for a person."""

    ok: bool
    detail: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


class Backend(abc.ABC):
    """One configured key store: `settings` of its KeyStore row, `credential` its resolved secret."""

    kind: ClassVar[str]
    protection: ClassVar[Protection]
    # Whether what it keeps is sealed under the root key: such a store can't hold the root key itself.
    needs_root_key: ClassVar[bool] = False

    @abc.abstractmethod
    def __init__(
        self, store_id: uuid.UUID, settings: Mapping[str, Any], credential: Secret | None
    ) -> None: ...

    @classmethod
    def protection_with(cls, settings: Mapping[str, Any]) -> Protection:
        """Return how a store with these settings protects; most kinds protect always alike."""
        return cls.protection

    @classmethod
    @abc.abstractmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Raise Invalid, naming the setting, where a key store can't be configured like this."""

    @abc.abstractmethod
    def capabilities(self) -> Capabilities:
        """Raises BackendUnavailable where the store has to be asked and can't be."""

    @abc.abstractmethod
    def health(self) -> Health:
        """Never raises."""

    def close(self) -> None:  # noqa: B027 nothing to do is a fine default, here and below
        """Let go of sessions and caches; the object is not used again."""

    # --- a version's life. `label` is the version's uuid, so that a crash can be reconciled.

    @abc.abstractmethod
    def generate(
        self,
        label: uuid.UUID,
        spec: str,
        *,
        usage: Usage | None = None,
        exportable: bool = False,
        parent: Parent | None = None,
    ) -> Material:
        """Make material under `label`, once: what is there already is returned.

        `usage` is the key's one purpose, the spec's first where left out: a store that can limits
        the material to it. Only material made `exportable` can ever leave. A store whose keys hold
        their versions makes the next version of `parent` (left out: the first of a key named like
        `label`). Raises Conflict where material of another spec is there, Unsupported for what is
        not offered, also where a store's cap on rotations is reached.
        """

    @abc.abstractmethod
    def find(self, label: uuid.UUID, parent: Parent | None = None) -> Material | None:
        """Return what an earlier generate or import under `label` left, complete, or None.

        A half-made pair (one of two objects) is cleaned away and reported as None.
        """

    @abc.abstractmethod
    def import_material(
        self,
        label: uuid.UUID,
        spec: str,
        material: Secret,
        *,
        usage: Usage | None = None,
        exportable: bool = False,
        parent: Parent | None = None,
    ) -> Material:
        """Take the caller's material: raw bytes for secrets, unencrypted PKCS#8 DER for key pairs.

        The same material again is a success; other material under the same label is a Conflict.
        Raises Invalid for what does not fit `spec`.
        """

    def export_material(self, handle: str) -> Secret:
        """Return the material in the form that import_material() takes.

        Raises StateForbids where it was not made exportable, Unsupported where nothing ever leaves.
        """
        raise Unsupported("Nothing ever leaves this key store.")

    @abc.abstractmethod
    def destroy(self, handle: str) -> None:
        """Remove the material for good. What is gone already is a success: a retry is safe.

        A store with a window of its own is told to begin it where it wasn't yet, and raises
        StillWaiting until the material is really gone. Raises Unsupported as check_destroyable() does.
        """

    def destroy_all(self, handles: Sequence[str]) -> None:
        """Destroy a whole key: all its versions' handles, together where they can't go alone."""
        for handle in handles:
            self.destroy(handle)

    def check_destroyable(self, handle: str, among: Sequence[str]) -> None:  # noqa: B027
        """Raise Unsupported where the store can't destroy this one of a key's living handles alone.

        Reaches for nothing. `among`: the handles of the key that have material, oldest first.
        """

    def remove(self, handle: str) -> None:
        """Remove imported material so that the very same can be imported again under its label."""
        self.destroy(handle)

    def suspend(self, handle: str) -> None:  # noqa: B027
        """Make the store itself refuse use, where it can; the console enforces it anyway."""

    def resume(self, handle: str) -> None:  # noqa: B027
        """Undo suspend()."""

    def deactivate(self, handle: str) -> None:  # noqa: B027
        """Make the store itself refuse to protect new data, where it can express that."""

    # --- the store's own view, of stores that keep states of their own (registry.Kind.remote)

    def discover(self, cursor: str = "", limit: int = 100) -> Page:
        """Return a page of what is in the store, ours and others', in a stable order.

        A page may hold fewer than `limit` keys, and none, before the end. Public keys may be left out.
        """
        raise Unsupported("The keys of this key store can't be listed.")

    def inspect(self, reference: str) -> KeyView | None:
        """Return one key as it is now, by a reference from discover(); None where it isn't there.

        Public keys are given. Nothing is changed.
        """
        raise Unsupported("The keys of this key store can't be listed.")

    def observe(self, wanted: KeyView) -> KeyView | None:
        """Return a key of the console as it is at the store now; None where nothing of it is there.

        `wanted` is what the console believes: its versions' handles say what to look for. Versions
        that the store has beside them are given too. `reference` is filled in.
        """
        raise Unsupported("This key store keeps no states of its own.")

    def expressed(self, wanted: KeyView) -> KeyView:
        """Return what observe() would say if the store were in line with `wanted`, as far as it can be.

        Reaches for nothing. What the store can't express (a compromised version, say) is given as
        what it would show instead; the console enforces the rest. A version that the store would
        not list any more is left out.
        """
        raise Unsupported("This key store keeps no states of its own.")

    def conform(self, wanted: KeyView) -> None:
        """Bring the store in line: afterwards observe() says what expressed() says. Safe to repeat.

        States, the primary version, scheduled destructions and their cancellation, the period of
        the store's own rotation and the tags that `wanted` names; other tags, and versions that the
        console doesn't know, stay as they are. Raises as any use of the store does.
        """
        raise Unsupported("This key store keeps no states of its own.")

    # --- use. `algorithm` is a name from keys.algorithms.ALGORITHMS that capabilities() lists.

    def inline(self, handle: str) -> bool:
        """Whether a use of `handle` would be quick and local now: an event loop may run it itself."""
        return False

    @abc.abstractmethod
    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        """Return the store's own ciphertext (nonce, data, tag). The envelope around it is ours.

        RSA-OAEP takes `aad` as its label (RFC 8017, 7.1). Raises TooLarge for a plaintext over what
        the modulus takes, Unsupported where the store can't bind a label that is not empty.
        """

    @abc.abstractmethod
    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        """Undo encrypt(). Raises CannotDecrypt for whatever is not exactly its output for `aad`."""

    @abc.abstractmethod
    def sign(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bytes:
        """Return the signature (ECDSA: DER). `message_type` says what `message` is.

        Raises Invalid for a digest or mu of a wrong length, or where the algorithm takes none.
        """

    @abc.abstractmethod
    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bool:
        """Whether the signature is valid; a malformed one is merely not.

        Raises Invalid as sign() does. A backend may verify in this process, from the public key,
        rather than in the store.
        """

    @abc.abstractmethod
    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes: ...

    @abc.abstractmethod
    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        """Compare in constant time."""

    def wrap(self, handle: str, algorithm: str, target: bytes) -> bytes:
        """Return `target`, a key's bytes, wrapped in the algorithm's standard form, without a header.

        AES-KWP (RFC 5649), RSA-OAEP with an empty label, RSA_AES_KEY_WRAP (PKCS#11 3.1, 6.1.21: the
        OAEP of a fresh AES-256 key, then KWP under it), HPKE (RFC 9180, base mode, empty info and
        aad: `enc`, then the ciphertext). Raises TooLarge, Unsupported.
        """
        raise Unsupported(f"This key store has no {algorithm}.")

    def unwrap(self, handle: str, algorithm: str, wrapped: bytes) -> bytes:
        """Undo wrap(). Raises CannotDecrypt for whatever is not its output."""
        raise Unsupported(f"This key store has no {algorithm}.")

    def agree(self, handle: str, algorithm: str, peer: bytes) -> bytes:
        """Return the raw ECDH shared secret with `peer`, a DER SubjectPublicKeyInfo.

        For EC the x-coordinate (SP 800-56A rev. 3, 5.7.1.2), for X25519 RFC 7748's output. Raises
        Invalid for a key of another curve, not on it, or of small order.
        """
        raise Unsupported(f"This key store has no {algorithm}.")

    def decapsulate(self, handle: str, algorithm: str, ciphertext: bytes) -> bytes:
        """Return the shared secret of a KEM ciphertext. Raises CannotDecrypt for a wrong length.

        ML-KEM and X-Wing reject implicitly: a forged ciphertext gives another secret, not an error.
        """
        raise Unsupported(f"This key store has no {algorithm}.")

    def derive(
        self, handle: str, algorithm: str, *, salt: bytes, info: bytes, length: int
    ) -> bytes:
        """Return `length` bytes of HKDF (RFC 5869, extract and expand) over the material."""
        raise Unsupported(f"This key store has no {algorithm}.")

    @abc.abstractmethod
    def random(self, count: int) -> bytes:
        """Return `count` random bytes from the store's own generator, 1 to 1024. Raises Invalid."""
