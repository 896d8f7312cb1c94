"""Proving that new material works, before anything relies on it."""

from __future__ import annotations

import os

from keys.algorithms import SPECS, Usage
from keys.backends import materials
from keys.backends.base import Backend, Material
from keys.errors import BackendError

_AAD = b"kms-console check"


def check_material(
    backend: Backend, material: Material, spec: str, usage: str, algorithm: str
) -> None:
    """Prove by a round trip of the key's own purpose that new material works.

    Raises BackendError where it doesn't, and whatever the store refuses with.
    """
    if not _works(backend, material, spec, Usage(usage), algorithm):
        raise BackendError("The new material failed its check.")


def _works(backend: Backend, material: Material, spec: str, usage: Usage, algorithm: str) -> bool:
    probe, handle = os.urandom(32), material.handle
    public = material.public_key or b""
    if usage is Usage.ENCRYPT_DECRYPT:
        # A token may have no way to bind a label to RSA-OAEP; then there is none to check.
        aad = b"" if SPECS[spec].asymmetric else _AAD
        sealed = backend.encrypt(handle, algorithm, probe, aad)
        return backend.decrypt(handle, algorithm, sealed, aad) == probe
    if usage is Usage.SIGN_VERIFY:
        return backend.verify(handle, algorithm, probe, backend.sign(handle, algorithm, probe))
    if usage is Usage.GENERATE_VERIFY_MAC:
        return backend.verify_mac(handle, algorithm, probe, backend.mac(handle, algorithm, probe))
    if usage is Usage.WRAP_UNWRAP:
        return backend.unwrap(handle, algorithm, backend.wrap(handle, algorithm, probe)) == probe
    if usage is Usage.KEY_AGREEMENT:
        other, peer = materials.new_pair(SPECS[spec])
        return backend.agree(handle, algorithm, peer) == materials.agreed(
            SPECS[spec], other, public
        )
    if usage is Usage.KEY_ENCAPSULATION:
        secret, ciphertext = materials.encapsulate(SPECS[spec], public)
        return backend.decapsulate(handle, algorithm, ciphertext) == secret
    first, again = (
        backend.derive(handle, algorithm, salt=b"", info=_AAD, length=length) for length in (32, 16)
    )
    return first[:16] == again
