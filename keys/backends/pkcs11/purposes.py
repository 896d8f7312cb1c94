"""A key's one purpose, as usage attributes of its objects: those of the purpose and no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pkcs11 import Attribute, MechanismFlag

from keys.algorithms import KeySpec, Usage
from keys.errors import BackendError

OWNER = "kms-console"

SECRET_USES = (
    Attribute.ENCRYPT,
    Attribute.DECRYPT,
    Attribute.SIGN,
    Attribute.VERIFY,
    Attribute.WRAP,
    Attribute.UNWRAP,
    Attribute.DERIVE,
)
PRIVATE_USES = (Attribute.DECRYPT, Attribute.SIGN, Attribute.UNWRAP, Attribute.DERIVE)
PUBLIC_USES = (Attribute.ENCRYPT, Attribute.VERIFY, Attribute.WRAP)


@dataclass(frozen=True, slots=True)
class Purpose:
    """The attribute that protects new data (none: one attribute is for both) and that which processes."""

    protect: Attribute | None
    process: Attribute
    flags: MechanismFlag

    def attributes(self) -> frozenset[Attribute]:
        return frozenset({self.process} if self.protect is None else {self.protect, self.process})


_SIGNING = Purpose(Attribute.SIGN, Attribute.VERIFY, MechanismFlag.SIGN | MechanismFlag.VERIFY)
PURPOSES: Mapping[Usage, Purpose] = {
    Usage.ENCRYPT_DECRYPT: Purpose(
        Attribute.ENCRYPT, Attribute.DECRYPT, MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
    ),
    Usage.SIGN_VERIFY: _SIGNING,
    Usage.GENERATE_VERIFY_MAC: _SIGNING,
    Usage.WRAP_UNWRAP: Purpose(
        Attribute.WRAP, Attribute.UNWRAP, MechanismFlag.WRAP | MechanismFlag.UNWRAP
    ),
    Usage.KEY_AGREEMENT: Purpose(None, Attribute.DERIVE, MechanismFlag.DERIVE),
}


def template(usage: Usage, possible: tuple[Attribute, ...]) -> dict[Attribute, bool]:
    """Return the usage attributes of one object, each said outright: tokens' defaults differ."""
    wanted = PURPOSES[usage].attributes()
    return {attribute: attribute in wanted for attribute in possible}


def set_uses(usage: Usage, key: Any, public: Any, *, protect: bool, process: bool) -> None:
    """Let the token permit or refuse protecting new data, and processing what is protected."""
    purpose = PURPOSES[usage]
    for attribute, allowed in ((purpose.protect, protect), (purpose.process, process)):
        if attribute is not None:
            there = key if public is None or attribute in PRIVATE_USES else public
            there[attribute] = allowed


# --- labels. They name the purpose, which a suspended key's attributes no longer tell, and what is
# known of the material by its fingerprint (checking.py).


def label(usage: Usage, fingerprint: str = "") -> str:
    return f"{OWNER} {usage.value} {fingerprint}".strip()


def recorded(text: str) -> tuple[Usage | None, str]:
    """Return purpose and fingerprint of a label, as far as it has them. Older ones name no purpose."""
    owner, *words = text.split(" ")
    if owner != OWNER:
        return None, ""
    usage = Usage(words.pop(0)) if words and words[0] in set(Usage) else None
    return usage, words[0] if words else ""


def purpose_of(spec: KeySpec, key: Any, public: Any, text: str) -> Usage:
    """Return what the objects are for: by their attributes, else (suspended) by their label.

    Raises BackendError where the attributes allow several uses and the label names none of them:
    that key isn't ours.
    """
    if public is None:
        on = {one for one in SECRET_USES if _is_on(key, one)}
    else:
        on = {one for one in PRIVATE_USES if _is_on(key, one)}
        on |= {one for one in PUBLIC_USES if _is_on(public, one)}
    named, _ = recorded(text)
    possible = [one for one in spec.usages if one in PURPOSES]
    matching = [one for one in possible if PURPOSES[one].attributes() & on]
    if len(matching) == 1:
        return matching[0]
    if named in (matching or possible):
        assert named is not None
        return named
    if matching or not possible:
        raise BackendError("The token holds a key under this id that is for more than one use.")
    return possible[0]


_MIXINS: Mapping[Attribute, str] = {
    Attribute.ENCRYPT: "encrypt",
    Attribute.DECRYPT: "decrypt",
    Attribute.SIGN: "sign",
    Attribute.VERIFY: "verify",
    Attribute.WRAP: "wrap_key",
    Attribute.UNWRAP: "unwrap_key",
    Attribute.DERIVE: "derive_key",
}


def _is_on(item: Any, attribute: Attribute) -> bool:
    # python-pkcs11 read them all when it found the object, and gave it a method for each.
    return hasattr(item, _MIXINS[attribute])
