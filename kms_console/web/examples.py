"""The command on a key's page that uses it, for whoever has a token and a grant."""

from __future__ import annotations

import json
from typing import Any

from keys.algorithms import SPECS, Family, Usage
from keys.models import Key

_MESSAGE = "aGVsbG8="  # "hello"
# Sixteen bytes: the size of an AES-128 key.
_KEY = "AAECAwQFBgcICQoLDA0ODw=="
_PEER = "<public key of the peer: DER, in base64>"

# purpose -> the last part of the address, and the body.
_USES: dict[str, tuple[str, dict[str, Any]]] = {
    Usage.ENCRYPT_DECRYPT: ("encrypt", {"plaintext": _MESSAGE}),
    Usage.SIGN_VERIFY: ("sign", {"message": _MESSAGE}),
    Usage.GENERATE_VERIFY_MAC: ("mac", {"message": _MESSAGE}),
    Usage.WRAP_UNWRAP: ("wrap-key", {"key_material": _KEY}),
    Usage.KEY_AGREEMENT: ("derive-shared-secret", {"peer_public_key": _PEER}),
    Usage.KEY_ENCAPSULATION: ("encapsulate", {}),
    Usage.DERIVE_KEY: ("derive-key", {"context": {"tenant": "north"}, "length": 32}),
}


def curl(key: Key, address: str) -> str:
    """Return a command that uses a key; `address` is that of this console, without a final slash."""
    operation, body = _USES[key.usage]
    lines = [
        f"curl {address}/api/v1/keys/{key.alias}/{operation}",
        '  -H "Authorization: Bearer $KMS_TOKEN"',
        '  -H "Content-Type: application/json"',
        f"  -d '{json.dumps(body)}'",
    ]
    return " \\\n".join(lines)


def about(key: Key) -> str:
    """Return what has to be known to use a key, in a sentence or two, or nothing."""
    if key.usage == Usage.ENCRYPT_DECRYPT and SPECS[key.spec].family is Family.RSA:
        return (
            "RSA encrypts no more than fits its modulus. For anything larger, generate a data key."
        )
    return _ABOUT.get(Usage(key.usage), "")


_ABOUT = {
    Usage.SIGN_VERIFY: "Keep the version beside the signature: it is needed to verify.",
    Usage.GENERATE_VERIFY_MAC: "Keep the version beside the MAC: it is needed to verify.",
    Usage.KEY_AGREEMENT: "Both sides come to the same secret; neither sends it.",
    Usage.KEY_ENCAPSULATION: "It gives a secret, and a ciphertext from which only this key gets it back.",
    Usage.DERIVE_KEY: "The same context gives the same key again, as long as the version is named.",
}
