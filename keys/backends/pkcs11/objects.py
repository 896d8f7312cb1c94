"""Objects on a token: how ours are made, found and recognised.

Every object of a version has CKA_ID = the version's uuid (16 bytes) and a CKA_LABEL that begins
with "kms-console". The label goes on with the purpose and, once it is known, the fingerprint, because
a suspended key tells neither any more. Ids and labels are not unique on a token, so what is found is
checked (checking.py).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from keys.algorithms import Family, KeySpec, Usage
from keys.backends import materials
from keys.backends.pkcs11 import forms, mechanisms, purposes
from keys.backends.pkcs11.abilities import TO_WRAP, Abilities
from keys.backends.pkcs11.passing import passing
from keys.errors import BackendError

# What a token answers that does not let attributes change.
FIXED = (
    pkcs11.AttributeReadOnly,
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.FunctionNotSupported,
)


@dataclass(frozen=True, slots=True, repr=False)
class Found:
    """A version's objects as one session sees them. `public` is None for secrets.

    `algorithms` is what the token offers for the purpose of such a key.
    """

    spec: KeySpec
    usage: Usage
    key: Any
    public: Any
    public_key: bytes | None
    abilities: Abilities
    algorithms: tuple[str, ...]

    def everything(self) -> list[Any]:
        return [self.key] if self.public is None else [self.key, self.public]

    def point(self, public_key: bytes) -> bytes:
        """Return a peer's public key (DER) as this token's ECDH wants it."""
        point = forms.raw_point(public_key)
        return forms.octet_string(point) if self.abilities.wrapped_points else point


# --- handles. The fingerprint is part of them, so that every process can check what it finds.


def handle_of(label: uuid.UUID, fingerprint: str) -> str:
    return f"{label.hex}.{fingerprint}"


def parse_handle(handle: str) -> tuple[uuid.UUID, str] | None:
    """Return label and fingerprint, or None for what handle_of() did not make."""
    label, dot, fingerprint = handle.partition(".")
    try:
        parsed = uuid.UUID(hex=label)
    except ValueError:
        return None
    return (parsed, fingerprint) if dot and fingerprint else None


# --- finding


def all_under(session: pkcs11.Session, label: uuid.UUID) -> list[Any]:
    # A list at once: the search holds the session's lock until it ends.
    return list(session.get_objects({Attribute.ID: label.bytes}))


def find(session: pkcs11.Session, label: uuid.UUID, abilities: Abilities) -> Found | None:
    """Return the complete material under `label`, or None; changes nothing.

    Raises BackendError where more than one key is there: nobody could tell which is meant.
    """
    keys, publics = [], []
    for item in all_under(session, label):
        kind = item[Attribute.CLASS]
        if kind in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY):
            keys.append(item)
        elif kind is ObjectClass.PUBLIC_KEY:
            publics.append(item)
    if len(keys) > 1 or len(publics) > 1:
        raise BackendError(
            "The token holds more than one key under this id; an operator must look."
        )
    if not keys:
        return None
    key, text = keys[0], str(keys[0][Attribute.LABEL])
    if key[Attribute.CLASS] is ObjectClass.SECRET_KEY:
        public, public_key, spec = None, None, forms.spec_of_secret(key)
    elif publics:
        public = publics[0]
        public_key = forms.subject_public_key_info(public)
        spec = forms.spec_of_public(public_key)
    else:
        return None
    usage = purposes.purpose_of(spec, key, public, text)
    offered = abilities.for_purpose(spec, usage)
    return Found(spec, usage, key, public, public_key, abilities, offered)


def clear_half_made(session: pkcs11.Session, label: uuid.UUID) -> None:
    """Remove what a crash left of a pair. Raises BackendError where an object there isn't ours."""
    leftovers = all_under(session, label)
    for item in leftovers:
        if not str(item[Attribute.LABEL]).startswith(purposes.OWNER):
            raise BackendError("The token holds an object of somebody else under this id.")
    for item in leftovers:
        item.destroy()


def record_fingerprint(found: Found, fingerprint: str) -> None:
    """Write the fingerprint into the labels, where the token lets them change."""
    text = purposes.label(found.usage, fingerprint)
    for item in found.everything():
        if item[Attribute.LABEL] != text:
            item[Attribute.LABEL] = text


def check_value_of_aes(key: Any) -> str:
    """Return the check value of an AES key that may decrypt."""
    block = key.decrypt(materials.CHECK_BLOCK, mechanism=pkcs11.Mechanism.AES_ECB)
    return bytes(block[: materials.CHECK_BYTES]).hex()


# --- making


def _kept(label: uuid.UUID, text: str, *, private: bool) -> dict[Attribute, Any]:
    template: dict[Attribute, Any] = {
        Attribute.TOKEN: True,
        Attribute.ID: label.bytes,
        Attribute.LABEL: text,
        Attribute.MODIFIABLE: True,
    }
    if private:
        template |= {
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
        }
    return template


def generate(
    session: pkcs11.Session, label: uuid.UUID, spec: KeySpec, usage: Usage, abilities: Abilities
) -> None:
    """Make the objects of a new version, for one purpose."""
    private = _kept(label, purposes.label(usage), private=True)
    if not spec.asymmetric:
        if usage is Usage.WRAP_UNWRAP:
            _generate_to_wrap(session, label, spec)
        else:
            _generate_secret(session, spec, purposes.PURPOSES[usage].flags, abilities, private)
        return
    kind, mechanism = mechanisms.PAIRS[spec.family]
    common: dict[str, Any] = {
        "store": True,
        "mechanism": mechanism,
        "capabilities": purposes.PURPOSES[usage].flags,
        "public_template": _kept(label, purposes.label(usage), private=False),
        "private_template": private,
    }
    if spec.family is Family.RSA:
        session.generate_keypair(kind, spec.bits, **common)
        return
    curve = {Attribute.EC_PARAMS: mechanisms.CURVES[spec.curve]}
    session.create_domain_parameters(kind, curve, local=True).generate_keypair(**common)


def _generate_secret(
    session: pkcs11.Session,
    spec: KeySpec,
    flags: MechanismFlag,
    abilities: Abilities,
    template: dict[Attribute, Any],
) -> Any:
    kind, mechanism = KeyType.AES, pkcs11.Mechanism.AES_KEY_GEN
    if spec.family is Family.HMAC:
        kind = _hmac_type(spec, abilities)
        mechanism = pkcs11.Mechanism.GENERIC_SECRET_KEY_GEN
        if kind is not KeyType.GENERIC_SECRET:
            template = template | {Attribute.KEY_TYPE: kind}
    return session.generate_key(
        kind,
        spec.bits,
        store=bool(template[Attribute.TOKEN]),
        capabilities=flags,
        mechanism=mechanism,
        template=template,
    )


def _generate_to_wrap(session: pkcs11.Session, label: uuid.UUID, spec: KeySpec) -> None:
    """Make a key that wraps, and know its check value.

    That takes a decryption, which a key that unwraps must never be able to do: with both, anybody
    who may use it could unwrap a key and have its bytes decrypted. So it begins as an object of the
    session that decrypts; the copy that is kept only ever wraps.
    """
    template = _kept(label, "", private=True) | {Attribute.TOKEN: False}

    def make() -> Any:
        return session.generate_key(
            KeyType.AES, spec.bits, capabilities=MechanismFlag.DECRYPT, template=template
        )

    with passing(make) as key:
        text = purposes.label(Usage.WRAP_UNWRAP, check_value_of_aes(key))
        key.copy({Attribute.TOKEN: True, Attribute.LABEL: text, **TO_WRAP})


def _hmac_type(spec: KeySpec, abilities: Abilities) -> KeyType:
    return abilities.hmac_types[f"sha{spec.bits}"]


def import_secret(
    session: pkcs11.Session,
    label: uuid.UUID,
    spec: KeySpec,
    usage: Usage,
    raw: bytes,
    abilities: Abilities,
) -> None:
    """Make an AES or HMAC object of bytes that were already checked."""
    text = purposes.label(usage, materials.check_value_of_secret(spec, raw))
    kind = KeyType.AES if spec.family is Family.AES else _hmac_type(spec, abilities)
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: kind,
            Attribute.VALUE: raw,
            **_kept(label, text, private=True),
            **purposes.template(usage, purposes.SECRET_USES),
        }
    )


def import_pair(
    session: pkcs11.Session, label: uuid.UUID, spec: KeySpec, usage: Usage, key: Any
) -> None:
    """Make both objects of a private key that was already checked."""
    private, public = forms.attributes_of_pair(spec, key)
    text = purposes.label(usage)
    session.create_object(
        private | _kept(label, text, private=True) | purposes.template(usage, purposes.PRIVATE_USES)
    )
    session.create_object(
        public | _kept(label, text, private=False) | purposes.template(usage, purposes.PUBLIC_USES)
    )


def set_uses(found: Found, *, protect: bool, process: bool) -> None:
    """Let the token permit or refuse protecting new data, and processing what is protected."""
    purposes.set_uses(found.usage, found.key, found.public, protect=protect, process=process)
