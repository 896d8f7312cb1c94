"""The little DER that keys need which the library has no classes for (X.690, RFC 5280, RFC 5958).

An algorithm here is an object identifier without parameters, and its keys are bytes without a
further ASN.1 structure, except where a caller reads one. Reading is strict: one encoding a value.
"""

from __future__ import annotations

from collections.abc import Iterator

INTEGER, BIT_STRING, OCTET_STRING, OBJECT_IDENTIFIER, SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x30
# OneAsymmetricKey's optional members: attributes [0] and publicKey [1].
ATTRIBUTES, PUBLIC_KEY = 0xA0, 0x81


def public_key_info(oid: str, public_key: bytes) -> bytes:
    """Return a SubjectPublicKeyInfo."""
    return _value(SEQUENCE, _algorithm(oid) + _value(BIT_STRING, b"\x00" + public_key))


def private_key_info(oid: str, private_key: bytes) -> bytes:
    """Return a PKCS#8 PrivateKeyInfo, version 1 (written as 0), whose OCTET STRING is the key."""
    return _value(
        SEQUENCE,
        _value(INTEGER, b"\x00") + _algorithm(oid) + _value(OCTET_STRING, private_key),
    )


def octet_string(content: bytes) -> bytes:
    return _value(OCTET_STRING, content)


def read_public_key(oid: str, encoded: bytes) -> bytes:
    """Return the key in a SubjectPublicKeyInfo of that algorithm. Raises ValueError."""
    algorithm, key = _members(encoded, SEQUENCE, BIT_STRING)
    if _value(SEQUENCE, algorithm) != _algorithm(oid) or key[:1] != b"\x00":
        raise ValueError("Not a public key of this algorithm.")
    return key[1:]


def read_private_key(oid: str, encoded: bytes) -> tuple[bytes, bytes | None]:
    """Return the key in a PKCS#8 structure of that algorithm, and the public key where it has one.

    Raises ValueError. Attributes are passed over (RFC 5958, 2).
    """
    values = list(_values(_only(encoded, SEQUENCE)))
    tags = [tag for tag, _ in values]
    if tags[:3] != [INTEGER, SEQUENCE, OCTET_STRING]:
        raise ValueError("Not a private key.")
    (_, version), (_, algorithm), (_, key) = values[:3]
    public = dict(values[3:]).get(PUBLIC_KEY)
    if tags[3:] not in ([], [ATTRIBUTES], [PUBLIC_KEY], [ATTRIBUTES, PUBLIC_KEY]):
        raise ValueError("A private key with unknown members.")
    if version != (b"\x00" if public is None else b"\x01"):
        raise ValueError("A private key of an unknown version.")
    if _value(SEQUENCE, algorithm) != _algorithm(oid):
        raise ValueError("Not a private key of this algorithm.")
    if public is None:
        return key, None
    if public[:1] != b"\x00":
        raise ValueError("A public key that doesn't end at a byte.")
    return key, public[1:]


def read_octet_string(encoded: bytes) -> bytes:
    """Return the content of one OCTET STRING. Raises ValueError for anything else."""
    return _only(encoded, OCTET_STRING)


def _members(encoded: bytes, *tags: int) -> list[bytes]:
    values = list(_values(_only(encoded, SEQUENCE)))
    if [tag for tag, _ in values] != list(tags):
        raise ValueError("Another structure.")
    return [content for _, content in values]


def _only(encoded: bytes, tag: int) -> bytes:
    values = list(_values(encoded))
    if len(values) != 1 or values[0][0] != tag:
        raise ValueError("Another structure.")
    return values[0][1]


def _values(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(encoded):
        if position + 2 > len(encoded):
            raise ValueError("Cut short.")
        tag, length = encoded[position], encoded[position + 1]
        position += 2
        if length > 0x80:
            size = length & 0x7F
            length = int.from_bytes(encoded[position : position + size], "big")
            position += size
            if size > 4 or _length(length) != encoded[position - size - 1 : position]:
                raise ValueError("A length that is not in its shortest form.")
        elif length == 0x80:
            raise ValueError("A length that is not definite.")
        if position + length > len(encoded):
            raise ValueError("Cut short.")
        yield tag, encoded[position : position + length]
        position += length


def _value(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + _length(len(content)) + content


def _length(length: int) -> bytes:
    if length < 0x80:
        return bytes([length])
    size = (length.bit_length() + 7) // 8
    return bytes([0x80 | size]) + length.to_bytes(size, "big")


def _algorithm(oid: str) -> bytes:
    first, second, *rest = (int(arc) for arc in oid.split("."))
    content = b"".join(_arc(arc) for arc in (40 * first + second, *rest))
    return _value(SEQUENCE, _value(OBJECT_IDENTIFIER, content))


def _arc(arc: int) -> bytes:
    written = [arc & 0x7F]
    while arc := arc >> 7:
        written.append(0x80 | (arc & 0x7F))
    return bytes(reversed(written))
