"""What a customer does at home before material is brought here: wrapping, with other tools than ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from keys.administration import ImportParameters
from keys.secret import Secret
from tests.parts import missing

OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
RSA_AES, RSA_OAEP = "RSA_AES_KEY_WRAP_SHA_256", "RSAES_OAEP_SHA_256"


def wrap(parameters: ImportParameters, material: bytes, algorithm: str = RSA_AES) -> Secret:
    """Wrap as the documents of the algorithms say, with pyca/cryptography."""
    return Secret(wrap_to(parameters.public_key, material, algorithm))


def wrap_to(public_key: bytes, material: bytes, algorithm: str = RSA_AES) -> bytes:
    key = serialization.load_der_public_key(public_key)
    assert isinstance(key, rsa.RSAPublicKey)
    if algorithm == RSA_OAEP:
        return key.encrypt(material, OAEP)
    passing = os.urandom(32)
    return key.encrypt(passing, OAEP) + keywrap.aes_key_wrap_with_padding(passing, material)


def unwrap(private_key: rsa.RSAPrivateKey, wrapped: bytes, algorithm: str = RSA_AES) -> bytes:
    """Undo what an export wrapped."""
    size = private_key.key_size // 8
    first = private_key.decrypt(wrapped[:size], OAEP)
    if algorithm == RSA_OAEP:
        return first
    return keywrap.aes_key_unwrap_with_padding(first, wrapped[size:])


def brought(
    parameters: ImportParameters, material: bytes, algorithm: str = RSA_AES
) -> dict[str, object]:
    """Return the arguments with which import_key() takes this material."""
    wrapped = wrap(parameters, material, algorithm)
    return {"wrapped": wrapped, "token": parameters.token, "algorithm": algorithm}


def openssl(folder: Path, *arguments: str) -> None:
    """Run the openssl command as docs/user-guide.md has it."""
    tool = shutil.which("openssl")
    if tool is None:
        missing("OpenSSL", "the package openssl")
    subprocess.run([tool, *arguments], cwd=folder, check=True, capture_output=True)


def openssl_oaep(folder: Path, source: str, target: str) -> None:
    openssl(
        folder,
        *("pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", "wrapping-key.der"),
        *("-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"),
        *("-pkeyopt", "rsa_mgf1_md:sha256", "-in", source, "-out", target),
    )


def openssl_wrap(folder: Path, parameters: ImportParameters, algorithm: str) -> Secret:
    """Wrap the file key.bin of a folder with the openssl command."""
    (folder / "wrapping-key.der").write_bytes(parameters.public_key)
    if algorithm == RSA_OAEP:
        openssl_oaep(folder, "key.bin", "wrapped.bin")
        return Secret((folder / "wrapped.bin").read_bytes())
    openssl(folder, "rand", "-out", "passing.bin", "32")
    openssl_oaep(folder, "passing.bin", "first.bin")
    passing = (folder / "passing.bin").read_bytes().hex()
    openssl(
        folder,
        *("enc", "-id-aes256-wrap-pad", "-iv", "A65959A6", "-K", passing),
        *("-in", "key.bin", "-out", "second.bin"),
    )
    return Secret((folder / "first.bin").read_bytes() + (folder / "second.bin").read_bytes())
