"""Uses of a key at AWS KMS. Each is one call; verifying is done in this process.

Under a symmetric key the associated data is bound as AWS's encryption context: its SHA-256 under the
name kms-console, since a context is text of limited length and stands in AWS's logs.
"""

from __future__ import annotations

import hashlib

from botocore.exceptions import ClientError

from keys.algorithms import Algorithm, Family, MessageType, Usage
from keys.backends import materials
from keys.backends.aws import vocabulary
from keys.backends.aws.connection import Connection, member
from keys.backends.aws.failures import code_of, refers_elsewhere, translated
from keys.backends.aws.keyring import Usable
from keys.errors import BackendError, CannotDecrypt, Invalid, TooLarge, Unsupported

_CRYPT = (Usage.ENCRYPT_DECRYPT, Usage.WRAP_UNWRAP)
_MESSAGE_TYPES = {
    MessageType.MESSAGE: "RAW",
    MessageType.DIGEST: "DIGEST",
    MessageType.EXTERNAL_MU: "EXTERNAL_MU",
}


def sealed(
    connection: Connection, arn: str, key: Usable, row: Algorithm, text: bytes, aad: bytes
) -> bytes:
    """Encrypt. Raises TooLarge, Unsupported for an empty text, and for aad with RSA."""
    context = _context(key, aad)
    most = vocabulary.MESSAGE_LIMIT
    if key.spec.asymmetric:
        most = vocabulary.oaep_limit(key.spec, row.name)
    if len(text) > most:
        raise TooLarge(f"AWS KMS encrypts at most {most} bytes with this key and {row.name}.")
    if not text:
        raise Unsupported("AWS KMS does not encrypt an empty text.")
    answer = connection.kms(
        "encrypt",
        KeyId=arn,
        Plaintext=text,
        EncryptionAlgorithm=vocabulary.aws_cipher(row.name),
        **context,
    )
    return bytes(member(answer, "CiphertextBlob", bytes))


def opened(
    connection: Connection, arn: str, key: Usable, row: Algorithm, ciphertext: bytes, aad: bytes
) -> bytes:
    """Decrypt. AWS finds the material itself. Raises CannotDecrypt."""
    context = _context(key, aad)
    if not 0 < len(ciphertext) <= vocabulary.CIPHERTEXT_LIMIT:
        raise CannotDecrypt
    try:
        answer = connection.raw_kms(
            "decrypt",
            KeyId=arn,
            CiphertextBlob=ciphertext,
            EncryptionAlgorithm=vocabulary.aws_cipher(row.name),
            **context,
        )
    except ClientError as error:
        raise (CannotDecrypt() if refers_elsewhere(error) else translated(error)) from None
    # Where this is absent the ciphertext was made by a key of another name.
    if member(answer, "KeyId", str) != arn:
        raise CannotDecrypt
    return bytes(member(answer, "Plaintext", bytes))


def _context(key: Usable, aad: bytes) -> dict[str, dict[str, str]]:
    if not aad:
        return {}
    if key.spec.asymmetric:
        raise Unsupported("AWS KMS can't bind a context to RSA-OAEP; leave it empty.")
    return {"EncryptionContext": {"kms-console": hashlib.sha256(aad).hexdigest()}}


def signed(
    connection: Connection,
    arn: str,
    key: Usable,
    row: Algorithm,
    message: bytes,
    message_type: MessageType,
) -> bytes:
    """Sign. A message that AWS would find too long is digested here, where the scheme has a digest."""
    materials.check_message(row, message, message_type)
    raw = message_type is MessageType.MESSAGE
    if raw and not 0 < len(message) <= vocabulary.MESSAGE_LIMIT:
        message, message_type = _shortened(key, row, message)
    answer = connection.kms(
        "sign",
        KeyId=arn,
        Message=message,
        MessageType=_MESSAGE_TYPES[message_type],
        SigningAlgorithm=row.name,
    )
    return bytes(member(answer, "Signature", bytes))


def _shortened(key: Usable, row: Algorithm, message: bytes) -> tuple[bytes, MessageType]:
    """Return what stands for a message that is empty or over 4096 bytes. Raises Unsupported, TooLarge."""
    if row.digest:
        return hashlib.new(row.digest, message).digest(), MessageType.DIGEST
    if key.spec.family is Family.ML_DSA and key.public_key is not None:
        return _mu(key.public_key, key, message), MessageType.EXTERNAL_MU
    if not message:
        raise Unsupported(f"AWS KMS does not sign an empty message with {row.name}.")
    raise TooLarge(f"AWS KMS signs at most {vocabulary.MESSAGE_LIMIT} bytes with {row.name}.")


def _mu(public_key: bytes, key: Usable, message: bytes) -> bytes:
    """Return ML-DSA's mu of a message with an empty context (FIPS 204, algorithm 2 and 7, line 6)."""
    loaded = materials.load_public_key(public_key, key.spec)
    raw: bytes = loaded.public_bytes_raw()  # type: ignore[union-attr]
    tr = hashlib.shake_256(raw).digest(64)
    return hashlib.shake_256(tr + b"\x00\x00" + message).digest(64)


def maced(connection: Connection, arn: str, row: Algorithm, message: bytes) -> bytes:
    answer = connection.kms(
        "generate_mac", KeyId=arn, MacAlgorithm=row.name, Message=_fit_for_mac(message)
    )
    return bytes(member(answer, "Mac", bytes))


def mac_holds(connection: Connection, arn: str, row: Algorithm, message: bytes, tag: bytes) -> bool:
    """Whether a MAC is right; AWS compares it."""
    _fit_for_mac(message)
    if len(tag) != materials.HASHES[row.digest].digest_size:
        return False
    try:
        answer = connection.raw_kms(
            "verify_mac", KeyId=arn, MacAlgorithm=row.name, Message=message, Mac=tag
        )
    except ClientError as error:
        if code_of(error) == "KMSInvalidMacException":
            return False
        raise translated(error) from None
    return member(answer, "MacValid", bool) is True


def _fit_for_mac(message: bytes) -> bytes:
    if not message:
        raise Unsupported("AWS KMS makes no MAC of an empty message.")
    if len(message) > vocabulary.MESSAGE_LIMIT:
        raise TooLarge(f"AWS KMS makes MACs of at most {vocabulary.MESSAGE_LIMIT} bytes.")
    return message


def agreed(connection: Connection, arn: str, key: Usable, row: Algorithm, peer: bytes) -> bytes:
    """Return the ECDH secret (DeriveSharedSecret). The peer's key is checked here first."""
    materials.load_public_key(peer, key.spec)
    answer = connection.kms(
        "derive_shared_secret", KeyId=arn, KeyAgreementAlgorithm=row.name, PublicKey=peer
    )
    return bytes(member(answer, "SharedSecret", bytes))


def decapsulated(connection: Connection, arn: str, row: Algorithm, ciphertext: bytes) -> bytes:
    """Return the secret of a KEM ciphertext (Decapsulate). Raises CannotDecrypt for a wrong length."""
    if not ciphertext:
        raise CannotDecrypt
    answer = connection.kms(
        "decapsulate",
        KeyId=arn,
        EncapsulationAlgorithm=row.name,
        SharedSecretCiphertextBlob=ciphertext,
    )
    return bytes(member(answer, "SharedSecret", bytes))


def random(connection: Connection, count: int) -> bytes:
    if not 1 <= count <= vocabulary.RANDOM_LIMIT:
        raise Invalid(f"Ask for 1 to {vocabulary.RANDOM_LIMIT} random bytes.")
    answer = connection.kms("generate_random", NumberOfBytes=count)
    got = bytes(member(answer, "Plaintext", bytes))
    if len(got) != count:
        raise BackendError("AWS KMS gave another number of random bytes.")
    return got
