"""What a person does at their own computer to bring material: wrap it under import parameters."""

from __future__ import annotations

import html
import os
import re

from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

REASON = {"reason": "the plan says so"}


def parameters(client: Client, alias: str, spec: str = "RSA_3072") -> tuple[str, str]:
    """Get import parameters through the console; return the public key (PEM) and the token."""
    answer = client.post(f"/keys/{alias}/import/parameters", {"spec": spec, **REASON})
    page = answer.content.decode()
    assert answer.status_code == 200, page
    assert "no-store" in answer["Cache-Control"]
    key = re.search(r'id="wrapping-key" tabindex="0">(.*?)</pre>', page, re.DOTALL)
    token = re.search(r'id="token" tabindex="0">(.*?)</output>', page)
    assert key and token
    return html.unescape(key.group(1)), html.unescape(token.group(1))


def _oaep() -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def _public(pem: str) -> rsa.RSAPublicKey:
    key = serialization.load_pem_public_key(pem.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def oaep(pem: str, material: bytes) -> bytes:
    """Wrap with RSA-OAEP alone."""
    return _public(pem).encrypt(material, _oaep())


def rsa_aes(pem: str, material: bytes) -> bytes:
    """Wrap with RSA-OAEP and AES key wrap with padding (PKCS#11 3.1, 6.1.21)."""
    once = os.urandom(32)
    wrapped = keywrap.aes_key_wrap_with_padding(once, material)
    return _public(pem).encrypt(once, _oaep()) + wrapped


def rsa_aes_unwrap(key: rsa.RSAPrivateKey, wrapped: bytes) -> bytes:
    """Undo rsa_aes(), as the recipient of an export does."""
    size = key.key_size // 8
    once = key.decrypt(wrapped[:size], _oaep())
    return keywrap.aes_key_unwrap_with_padding(once, wrapped[size:])


def form(
    client: Client, alias: str, material: bytes, algorithm: str = "RSA_AES_KEY_WRAP_SHA_256"
) -> dict[str, object]:
    """Return a filled-in upload form: fresh parameters, and the material wrapped under them."""
    pem, token = parameters(client, alias)
    wrap = rsa_aes if algorithm == "RSA_AES_KEY_WRAP_SHA_256" else oaep
    file = SimpleUploadedFile("wrapped.bin", wrap(pem, material))
    return {"algorithm": algorithm, "file": file, "token": token, **REASON}
