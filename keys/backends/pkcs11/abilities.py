"""What a token can really do: its mechanism list, and a try of each thing that a list doesn't tell.

SoftHSM, for one, lists RSA-OAEP and has it with SHA-1 only; lists RFC 5649 and pads wrongly; lists
no X25519 and has it. So: objects of a session that are gone at once, and answers compared with those
of the software. Tried once per process and token.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pkcs11
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag

from keys.algorithms import ALGORITHMS, SPECS, Family, KeySpec, Usage
from keys.backends import materials
from keys.backends.pkcs11 import failures, forms, mechanisms
from keys.backends.pkcs11.passing import agreed, passing, secret, unwrapped, wrapped
from keys.errors import KeyServiceError

Answer = TypeVar("Answer")

_PROBE = b"kms-console probe..."  # 20 bytes: not a multiple of 8
# How a key to wrap with differs from the one, only for checking, that it is a copy of.
TO_WRAP = {Attribute.DECRYPT: False, Attribute.WRAP: True, Attribute.UNWRAP: True}


@dataclass(frozen=True, slots=True)
class Abilities:
    """`algorithms`: key spec to algorithms, default first. The rest is how this token wants them."""

    algorithms: Mapping[str, tuple[str, ...]]
    hmac_types: Mapping[str, KeyType] = field(default_factory=dict)  # by hash
    oaep: tuple[str, ...] = ()  # hashes
    oaep_labels: frozenset[str] = frozenset()  # hashes with which a label can be bound
    kwp: Mechanism | None = None
    kwp_pads: bool = False  # False: it wraps whole blocks of 8 bytes only
    wrapped_points: bool = False  # ECDH takes the peer's point as an OCTET STRING

    def for_purpose(self, spec: KeySpec, usage: Usage) -> tuple[str, ...]:
        return spec.algorithms_for(usage, self.algorithms.get(spec.name, ()))

    def notes(self) -> Iterator[str]:
        """What a person should know before relying on this token."""
        if self.kwp is not None and not self.kwp_pads:
            yield "AES_KWP wraps only keys of whole 8 bytes: the token pads others wrongly."
        bare = [digest for digest in self.oaep if digest not in self.oaep_labels]
        if bare:
            names = ", ".join(
                name
                for name, row in ALGORITHMS.items()
                if name.startswith("RSAES_") and row.digest in bare
            )
            yield f"{names}: the token binds no label, so such ciphertexts carry no context (raw)."


def oaep_seal(public_key: bytes, digest: str, plaintext: bytes, label: bytes) -> bytes:
    """Encrypt to a DER public key here: that needs no secret. Raises ValueError where it is too long."""
    key = serialization.load_der_public_key(public_key)
    assert isinstance(key, rsa.RSAPublicKey)
    hashed = materials.HASHES[digest]
    return key.encrypt(plaintext, padding.OAEP(padding.MGF1(hashed), hashed, label or None))


def find_out(session: pkcs11.Session, slot: Any) -> Abilities:
    """Try the token out on a session that may make objects. Call under the process-wide lock."""
    return _Prober(session, slot).abilities()


def tried(act: Callable[..., Answer], *arguments: Any) -> Answer | None:
    """Return what `act` returns, or None where the token refuses. Raises where it went away."""
    try:
        return act(*arguments)
    except pkcs11.PKCS11Error as error:
        if failures.is_lost(error):
            raise
        return None
    except (KeyServiceError, ValueError, AttributeError):
        # What came makes no sense, or python-pkcs11 gave the object no such method.
        return None


class _Prober:
    """One token under trial."""

    def __init__(self, session: pkcs11.Session, slot: Any) -> None:
        self._session = session
        self._slot = slot
        self._present = set(slot.get_mechanisms())

    def abilities(self) -> Abilities:
        hmacs = {digest: kind for digest in mechanisms.HMACS if (kind := self._hmac_type(digest))}
        kwp = next((one for one in mechanisms.KWPS if tried(self._wraps, one)), None)
        pads = kwp is not None and bool(tried(self._pads, kwp))
        oaep, labels = tried(self._oaep) or ((), frozenset())
        points, can_agree = self._agreement()
        algorithms = {}
        for spec in SPECS.values():
            offered = tuple(
                name
                for name in spec.algorithms
                if self._offers(spec, name, hmacs, kwp, oaep, can_agree)
            )
            if offered:
                algorithms[spec.name] = offered
        return Abilities(algorithms, hmacs, oaep, labels, kwp, pads, points)

    def _offers(
        self,
        spec: KeySpec,
        name: str,
        hmacs: Mapping[str, KeyType],
        kwp: Mechanism | None,
        oaep: tuple[str, ...],
        can_agree: frozenset[str],
    ) -> bool:
        if spec.family is Family.AES:
            if name == "AES_KWP":
                return kwp is not None and self._makes_aes(spec)
            listed = {Mechanism.AES_GCM, Mechanism.AES_ECB} <= self._present  # ECB: check values
            return name in ("AES_256_GCM", "AES_128_GCM") and listed and self._makes_aes(spec)
        if spec.family is Family.HMAC:
            return name.startswith("HMAC_") and f"sha{spec.bits}" in hmacs
        if spec.family is Family.RSA:
            return self._makes(spec) and self._offers_rsa(name, oaep)
        if spec.family in (Family.EC, Family.EDWARDS, Family.MONTGOMERY):
            return spec.name in can_agree if name == "ECDH" else bool(tried(self._signs, spec))
        return False

    def _offers_rsa(self, name: str, oaep: tuple[str, ...]) -> bool:
        if name.startswith("RSASSA_PSS"):
            return Mechanism.RSA_PKCS_PSS in self._present
        if name.startswith("RSASSA_PKCS1"):
            return Mechanism.RSA_PKCS in self._present
        return ALGORITHMS[name].digest in oaep

    def _makes(self, spec: KeySpec) -> bool:
        """Whether pairs of this size are listed. For secrets the unit is not sure: not asked."""
        _, mechanism = mechanisms.PAIRS[spec.family]
        if mechanism not in self._present:
            return False
        info = tried(self._slot.get_mechanism_info, mechanism)
        bits = max(spec.bits, 256) if spec.family is Family.MONTGOMERY else spec.bits
        return info is not None and info.min_key_length <= bits <= info.max_key_length

    # --- secrets

    def _makes_aes(self, spec: KeySpec) -> bool:
        def make() -> Any:
            return self._session.generate_key(
                KeyType.AES, spec.bits, capabilities=MechanismFlag.DECRYPT
            )

        def works() -> bool:
            with passing(make) as key:
                key.decrypt(materials.CHECK_BLOCK, mechanism=Mechanism.AES_ECB)
                # A key to wrap with is made as a copy of one that may only be checked.
                with passing(lambda: key.copy(TO_WRAP)) as copy:
                    return hasattr(copy, "wrap_key") and not hasattr(copy, "decrypt")

        return Mechanism.AES_KEY_GEN in self._present and bool(tried(works))

    def _wraps(self, mechanism: Mechanism) -> bool:
        return self._kwp(mechanism, _PROBE + b"four")

    def _pads(self, mechanism: Mechanism) -> bool:
        return self._kwp(mechanism, _PROBE)

    def _kwp(self, mechanism: Mechanism, target: bytes) -> bool:
        if mechanism not in self._present:
            return False
        raw = os.urandom(32)
        uses = frozenset({Attribute.WRAP, Attribute.UNWRAP})
        with passing(lambda: secret(self._session, raw, KeyType.AES, uses)) as key:
            odd = aes_key_wrap_with_padding(raw, _PROBE)
            return unwrapped(key, odd, mechanism=mechanism) == _PROBE and wrapped(
                key, mechanism, target
            ) == aes_key_wrap_with_padding(raw, target)

    def _hmac_type(self, digest: str) -> KeyType | None:
        mechanism = mechanisms.HMACS[digest]
        if not {mechanism, Mechanism.GENERIC_SECRET_KEY_GEN} <= self._present:
            return None

        def signs(kind: KeyType) -> bool:
            template = {} if kind is KeyType.GENERIC_SECRET else {Attribute.KEY_TYPE: kind}

            def make() -> Any:
                return self._session.generate_key(
                    kind,
                    int(digest[3:]),
                    capabilities=MechanismFlag.SIGN,
                    mechanism=Mechanism.GENERIC_SECRET_KEY_GEN,
                    template=template,
                )

            with passing(make) as key:
                return len(key.sign(_PROBE, mechanism=mechanism)) == int(digest[3:]) // 8

        kinds = mechanisms.HMAC_TYPES[digest]
        return next((kind for kind in kinds if tried(signs, kind)), None)

    # --- pairs

    def _pair(self, spec: KeySpec, flags: MechanismFlag) -> Any:
        """Make a pair in the session; (public, private)."""
        kind, mechanism = mechanisms.PAIRS[spec.family]
        if spec.family is Family.RSA:
            return self._session.generate_keypair(kind, spec.bits, capabilities=flags)
        curve = {Attribute.EC_PARAMS: mechanisms.CURVES[spec.curve]}
        parameters = self._session.create_domain_parameters(kind, curve, local=True)
        return parameters.generate_keypair(mechanism=mechanism, capabilities=flags)

    def _oaep(self) -> tuple[tuple[str, ...], frozenset[str]]:
        """Return the hashes with which the token decrypts and unwraps, and those with a label."""
        spec = next(row for row in SPECS.values() if row.family is Family.RSA and self._makes(row))
        if Mechanism.RSA_PKCS_OAEP not in self._present:
            return (), frozenset()
        flags = MechanismFlag.DECRYPT | MechanismFlag.UNWRAP
        with passing(lambda: self._pair(spec, flags)) as (public, private):
            der = forms.subject_public_key_info(public)

            def decrypts(digest: str, label: bytes) -> bool:
                sealed, how = oaep_seal(der, digest, _PROBE, label), mechanisms.oaep(digest, label)
                return bool(
                    private.decrypt(sealed, **how) == _PROBE
                    and unwrapped(private, sealed, **how) == _PROBE
                )

            works = tuple(one for one in mechanisms.OAEPS if tried(decrypts, one, b""))
            labels = {one for one in works if tried(decrypts, one, b"label")}
            return works, frozenset(labels)

    def _signs(self, spec: KeySpec) -> bool:
        if spec.family is Family.MONTGOMERY or not self._makes(spec):
            return False
        mechanism = Mechanism.ECDSA if spec.family is Family.EC else Mechanism.EDDSA
        if mechanism not in self._present:
            return False
        with passing(lambda: self._pair(spec, MechanismFlag.SIGN)) as (public, private):
            found = forms.spec_of_public(forms.subject_public_key_info(public))
            return found is spec and bool(private.sign(bytes(32), mechanism=mechanism))

    def _agreement(self) -> tuple[bool, frozenset[str]]:
        """Return how the token wants a peer's point, and the specs with which it agrees."""
        for wrapped_points in (False, True):
            able = {
                spec.name
                for spec in SPECS.values()
                if "ECDH" in spec.algorithms and tried(self._agrees, spec, wrapped_points)
            }
            if able:
                return wrapped_points, frozenset(able)
        return False, frozenset()

    def _agrees(self, spec: KeySpec, wrapped_points: bool) -> bool:
        if Mechanism.ECDH1_DERIVE not in self._present or not self._makes(spec):
            return False
        other, peer = materials.new_pair(spec)
        with passing(lambda: self._pair(spec, MechanismFlag.DERIVE)) as (public, private):
            der = forms.subject_public_key_info(public)
            point = forms.raw_point(peer)
            point = forms.octet_string(point) if wrapped_points else point
            ours = agreed(private, point, forms.field_bytes(spec.curve))
            return ours == materials.agreed(spec, other, der)
