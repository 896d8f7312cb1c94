"""Makes docs/vectors/ciphertext.json from primitives, with fixed nonces: run it as a module.

    .venv/bin/python -m tests.honesty.make_vectors

It imports nothing of keys/ and audit/, and gives the same bytes at every run, RSA included: keys and
OAEP seeds come from SHAKE-256 of a label. Only X-Wing's encapsulations, which the library can't make
again, are kept from the file that is there. A test compares the script's output with the file.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, AESSIV
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from tests.honesty import reader

FILE = Path(__file__).resolve().parent.parent.parent / "docs" / "vectors" / "ciphertext.json"
CODES = {name: (code, size) for code, (name, size) in reader.ALGORITHMS.items()}
NONCES = reader.NONCES
SPECS = {
    "XAES_256_GCM": "AES_256",
    "AES_256_GCM": "AES_256",
    "AES_128_GCM": "AES_128",
    "AES_256_GCM_SIV": "AES_256",
    "XCHACHA20_POLY1305": "XCHACHA20",
    "AES_SIV_CMAC_512": "AES_SIV_512",
}
CONTEXTS: list[dict[str, str]] = [
    {},
    {"patient": "4711"},
    {"ward": "7", "patient": "Ä-12"},
    {"ż": "💊", "é": "", "e\u0301": "looks like another name", "a": "b", "ab": ""},
]
HPKE = "HPKE_X_WING_HKDF_SHA_256_AES_256_GCM"
# PKCS#8 up to the seed: version 0, the object identifier 1.3.6.1.4.1.62253.25722, 32 bytes.
X_WING_PKCS8 = bytes.fromhex("3034020100300d060b2b0601040183e62d81c87a0420")
Json = dict[str, Any]


def stream(label: str, count: int) -> bytes:
    """Return `count` bytes that look random and are the same at every run."""
    return hashlib.shake_256(b"kms-console vector " + label.encode()).digest(count)


# --- keys


def prime(label: str, bits: int) -> int:
    """Return a probable prime with its two highest bits set; loading the key checks it again."""
    for attempt in range(100_000):
        number = int.from_bytes(stream(f"{label} {attempt}", bits // 8), "big")
        number |= (3 << (bits - 2)) | 1
        if any(number % small == 0 for small in range(3, 5000, 2)):
            continue
        if number % 65537 != 1 and all(passes(number, base) for base in bases(label)):
            return number
    raise AssertionError(label)


def bases(label: str) -> Iterator[int]:
    for round_ in range(8):
        yield int.from_bytes(stream(f"{label} base {round_}", 16), "big") | 2


def passes(number: int, base: int) -> bool:
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    value = pow(base, odd, number)
    if value in (1, number - 1):
        return True
    for _ in range(twos - 1):
        value = value * value % number
        if value == number - 1:
            return True
    return False


def rsa_pkcs8(label: str, bits: int) -> bytes:
    p, q = prime(f"{label} p", bits // 2), prime(f"{label} q", bits // 2)
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(65537, p * q)
    )
    return numbers.private_key().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def keys() -> dict[str, Json]:
    """Return every key of the vectors by its name."""
    found: dict[str, Json] = {}

    def add(
        name: str, spec: str, usage: str, algorithm: str, material: bytes, version: int
    ) -> None:
        found[name] = {
            "spec": spec,
            "usage": usage,
            "algorithm": algorithm,
            "key_id": str(uuid.UUID(bytes=stream(f"id of {name}", 16), version=4)),
            "version": version,
            "material": material.hex(),
        }

    for index, (algorithm, spec) in enumerate(SPECS.items()):
        for which in ("one", "other"):
            name = f"{algorithm} {which}"
            material = stream(name, CODES[algorithm][1])
            number = 2**32 - 1 if which == "other" else index + 1
            add(name, spec, "ENCRYPT_DECRYPT", algorithm, material, number)
    for bits in (2048, 3072):
        material = rsa_pkcs8(f"RSA {bits}", bits)
        add(f"RSA {bits}", f"RSA_{bits}", "ENCRYPT_DECRYPT", "RSAES_OAEP_SHA_256", material, 3)
    for bits in (256, 384, 512):
        add(
            f"HMAC {bits}",
            f"HMAC_{bits}",
            "DERIVE_KEY",
            f"HKDF_SHA_{bits}",
            stream(f"HMAC {bits}", bits // 8),
            1,
        )
    for bits in (128, 256):
        name = f"AES {bits} for wrapping"
        add(name, f"AES_{bits}", "WRAP_UNWRAP", "AES_KWP", stream(name, bits // 8), 1)
    material = X_WING_PKCS8 + stream("X-Wing", 32)
    add("X-Wing", "X_WING", "WRAP_UNWRAP", HPKE, material, 1)
    return found


# --- what is made with them


def header(algorithm: str, key: Json) -> bytes:
    code = CODES[algorithm][0]
    return reader.HEADER.pack(0x4B, 1, code, uuid.UUID(key["key_id"]).bytes, key["version"])


def oaep(algorithm: str, pkcs8: bytes, plaintext: bytes, label: bytes, seed: bytes) -> bytes:
    """RFC 8017, 7.1.1, with the seed as an argument."""
    name = "sha" + algorithm.rpartition("_")[2]
    hash_bytes = hashlib.new(name).digest_size
    numbers = reader.rsa_key(pkcs8).public_key().public_numbers()
    size = (numbers.n.bit_length() + 7) // 8
    padding = bytes(size - len(plaintext) - 2 * hash_bytes - 2)
    block = hashlib.new(name, label).digest() + padding + b"\x01" + plaintext
    seed = seed[:hash_bytes]
    masked = xor(block, mgf1(name, seed, len(block)))
    encoded = b"\x00" + xor(seed, mgf1(name, masked, hash_bytes)) + masked
    return pow(int.from_bytes(encoded, "big"), numbers.e, numbers.n).to_bytes(size, "big")


def mgf1(name: str, seed: bytes, count: int) -> bytes:
    blocks = range(-(-count // hashlib.new(name).digest_size))
    mask = b"".join(
        hashlib.new(name, seed + number.to_bytes(4, "big")).digest() for number in blocks
    )
    return mask[:count]


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def body(algorithm: str, key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Return a body with the nonce given (for RSA: the seed)."""
    if algorithm.startswith("RSAES"):
        return oaep(algorithm, key, plaintext, aad, nonce)
    if algorithm == "XAES_256_GCM":
        return reader.xaes_seal(key, nonce, plaintext, aad)
    if algorithm == "XCHACHA20_POLY1305":
        return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)
    if algorithm == "AES_SIV_CMAC_512":
        return AESSIV(key).encrypt(plaintext, [aad])
    if algorithm == "AES_256_GCM_SIV":
        return nonce + AESGCMSIV(key).encrypt(nonce, plaintext, aad)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, aad)


def sealed(
    algorithm: str, key: Json, plaintext: bytes, context: dict[str, str], label: str
) -> bytes:
    nonce = stream(f"nonce of {label}", NONCES.get(algorithm, 64))
    first = header(algorithm, key)
    aad = first + reader.encoded_context(context)
    return first + body(algorithm, bytes.fromhex(key["material"]), nonce, plaintext, aad)


def ciphertexts(ring: dict[str, Json]) -> list[Json]:
    rows = []
    for algorithm in CODES:
        by_rsa = algorithm.startswith("RSAES")
        names = ["RSA 2048", "RSA 3072"] if by_rsa else [f"{algorithm} one", f"{algorithm} other"]
        sizes = [0, 1, 32, 126] if by_rsa else [0, 1, 32, 257]
        for index, size in enumerate(sizes):
            name, context = names[index % 2], CONTEXTS[index]
            label = f"{algorithm} {size}"
            plaintext = stream(f"plaintext of {label}", size)
            rows.append(
                {
                    "name": f"{algorithm}, {size} bytes, {len(context)} pairs",
                    "algorithm": algorithm,
                    "key": name,
                    "context": context,
                    "plaintext": plaintext.hex(),
                    "ciphertext": sealed(algorithm, ring[name], plaintext, context, label).hex(),
                }
            )
    return rows


# --- what must be refused


def refused(ring: dict[str, Json]) -> list[Json]:
    rows: list[Json] = []
    context = {"ward": "7", "patient": "12"}
    for algorithm in CODES:
        by_rsa = algorithm.startswith("RSAES")
        name, other = (
            ("RSA 2048", "RSA 3072") if by_rsa else (f"{algorithm} one", f"{algorithm} other")
        )
        good = sealed(algorithm, ring[name], b"dose: 5 mg", context, f"refused {algorithm}")
        second = sealed(algorithm, ring[name], b"dose: 9 mg", context, f"second {algorithm}")
        foreign = sealed(algorithm, ring[other], b"dose: 5 mg", context, f"foreign {algorithm}")

        def row(
            why: str,
            data: bytes,
            given: dict[str, str] = context,
            key: str = name,
            of: str = algorithm,
        ) -> None:
            rows.append(
                {
                    "name": f"{of}: {why}",
                    "algorithm": of,
                    "key": key,
                    "context": given,
                    "ciphertext": data.hex(),
                }
            )

        row("the last bit is another", good[:-1] + bytes([good[-1] ^ 1]))
        row("the first bit of the body is another", good[:23] + bytes([good[23] ^ 128]) + good[24:])
        row("the last byte is missing", good[:-1])
        row("a byte more", good + b"\x00")
        row("nothing but the header", good[:23])
        row("a body of one byte", good[:24])
        row("an empty text", b"")
        row("another magic", b"k" + good[1:])
        row("an unknown format", good[:1] + b"\x02" + good[2:])
        row("the retired algorithm code 1", good[:2] + b"\x01" + good[3:])
        row("an algorithm that encrypts nothing (HMAC_SHA_256)", good[:2] + b"\x10" + good[3:])
        row("a code that nothing has", good[:2] + b"\xff" + good[3:])
        row("version 0", good[:19] + bytes(4) + good[23:])
        row("another version of the key", good[:19] + b"\x00\x00\x00\x2a" + good[23:])
        row("another key's id", good[:3] + foreign[3:19] + good[19:], key=other)
        row("another key's header and this body", foreign[:23] + good[23:], key=other)
        row("this header and another key's body", good[:23] + foreign[23:])
        row("no context", good, {})
        row("a value is another", good, context | {"ward": "8"})
        row("a pair more", good, context | {"more": ""})
        row("a pair less", good, {"ward": "7"})
        row("values exchanged", good, {"ward": "12", "patient": "7"})
        row("names exchanged for values", good, {"7": "ward", "12": "patient"})
        row("a name in another case", good, {"Ward": "7", "patient": "12"})
        if not by_rsa:
            nonce = NONCES[algorithm] or 16
            row(
                "the nonce of another ciphertext",
                good[:23] + second[23 : 23 + nonce] + good[23 + nonce :],
            )
            row("the tag of another ciphertext", good[:-16] + second[-16:])
            key = bytes.fromhex(ring[name]["material"])
            bare = body(
                algorithm, key, stream(f"bare {algorithm}", NONCES[algorithm]), b"text", b""
            )
            row("a body that binds neither header nor context", good[:23] + bare)
        if by_rsa:
            pkcs8 = bytes.fromhex(ring[name]["material"])
            bare = oaep(algorithm, pkcs8, b"text", b"", stream("bare", 64))
            row("a raw RSA ciphertext behind a header", good[:23] + bare, {})
            row("a raw RSA ciphertext without a header", bare, {})
    rows += _committing(ring, context)
    rows += _of_other_algorithms(ring, context)
    return rows


def _committing(ring: dict[str, Json], context: dict[str, str]) -> list[Json]:
    """XAES bodies whose GCM part is right for the key, with a commitment that isn't."""
    name, other = "XAES_256_GCM one", "XAES_256_GCM other"
    good = sealed("XAES_256_GCM", ring[name], b"dose: 5 mg", context, "committing")
    nonce, foreign = good[23:47], bytes.fromhex(ring[other]["material"])
    own = bytes.fromhex(ring[name]["material"])
    commitments = {
        "the commitment of another key": reader.xaes_commitment(foreign, nonce),
        "the commitment to another nonce": reader.xaes_commitment(own, bytes(24)),
        "a commitment of zeros": bytes(32),
        "half a commitment": reader.xaes_commitment(own, nonce)[:16],
        "no commitment, as code 1 had none": b"",
    }
    return [
        {
            "name": f"XAES_256_GCM: {why}, all else right",
            "algorithm": "XAES_256_GCM",
            "key": name,
            "context": context,
            "ciphertext": (good[:47] + commitment + good[79:]).hex(),
        }
        for why, commitment in commitments.items()
    ]


def _of_other_algorithms(ring: dict[str, Json], context: dict[str, str]) -> list[Json]:
    """What is right for the material, by an algorithm that the key doesn't have."""
    rows = []
    for name, algorithm in (
        ("XAES_256_GCM one", "AES_256_GCM"),
        ("AES_256_GCM one", "XAES_256_GCM"),
        ("AES_256_GCM one", "AES_256_GCM_SIV"),
        ("AES_256_GCM_SIV one", "AES_256_GCM"),
        ("XCHACHA20_POLY1305 one", "XAES_256_GCM"),
    ):
        data = sealed(algorithm, ring[name], b"dose: 5 mg", context, f"{algorithm} by {name}")
        rows.append(
            {
                "name": f"{algorithm} of a key whose algorithm is {ring[name]['algorithm']}",
                "algorithm": ring[name]["algorithm"],
                "key": name,
                "context": context,
                "ciphertext": data.hex(),
            }
        )
    return rows


# --- contexts, derived keys, wrapped keys, batches


def derived(ring: dict[str, Json]) -> list[Json]:
    rows = []
    for bits in (256, 384, 512):
        name, algorithm = f"HMAC {bits}", f"HKDF_SHA_{bits}"
        for index, (length, salt) in enumerate(
            ((32, b""), (16, b"salt"), (100, stream("salt", 64)))
        ):
            context, material = CONTEXTS[index + 1], bytes.fromhex(ring[name]["material"])
            key = reader.derived_key(algorithm, material, salt, context, length)
            rows.append(
                {
                    "algorithm": algorithm,
                    "key": name,
                    "context": context,
                    "salt": salt.hex(),
                    "length": length,
                    "derived": key.hex(),
                }
            )
    return rows


def wrapped(ring: dict[str, Json]) -> list[Json]:
    rows = []

    def add(algorithm: str, name: str, target: bytes, data: bytes) -> None:
        rows.append(
            {
                "algorithm": algorithm,
                "key": name,
                "key_material": target.hex(),
                "wrapped_key": data.hex(),
            }
        )

    for bits in (128, 256):
        name = f"AES {bits} for wrapping"
        for size in (1, 8, 16, 20, 32, 64):
            target = stream(f"target {size}", size)
            material = bytes.fromhex(ring[name]["material"])
            add("AES_KWP", name, target, aes_key_wrap_with_padding(material, target))
    for bits in (2048, 3072):
        name = f"RSA {bits}"
        material, target = bytes.fromhex(ring[name]["material"]), stream(f"target of {name}", 32)
        for algorithm in (name for name in CODES if name.startswith("RSAES")):
            add(algorithm, name, target, oaep(algorithm, material, target, b"", stream(name, 64)))
        inner, large = stream(f"inner {name}", 32), stream(f"large target of {name}", 1218)
        head = oaep("RSAES_OAEP_SHA_256", material, inner, b"", stream(f"seed {name}", 64))
        data = head + aes_key_wrap_with_padding(inner, large)
        add("RSA_AES_KEY_WRAP_SHA_256", name, large, data)
    material = bytes.fromhex(ring["X-Wing"]["material"])
    for index, enc in enumerate(encapsulations(material)):
        target = stream(f"target of X-Wing {index}", 32)
        message_key, nonce = reader.hpke_key_schedule(reader.x_wing_secret(material, enc))
        add(HPKE, "X-Wing", target, enc + AESGCM(message_key).encrypt(nonce, target, b""))
    return rows


def encapsulations(pkcs8: bytes) -> list[bytes]:
    """Return two X-Wing ciphertexts for a key: those of the file, else fresh ones."""
    if FILE.exists():
        rows = json.loads(FILE.read_text(encoding="utf-8"))["wrapped_keys"]
        kept = [
            bytes.fromhex(row["wrapped_key"])[:1120] for row in rows if row["algorithm"] == HPKE
        ]
        if kept:
            return kept
    kem, _ = reader.x_wing_parts(pkcs8)
    public = kem.public_key()
    sent = [X25519PrivateKey.generate().public_key().public_bytes_raw() for _ in range(2)]
    return [public.encapsulate()[1] + passing for passing in sent]


def batches() -> list[Json]:
    rows = []
    for count in (1, 2, 3, 6, 7, 13):
        items: list[Json] = []
        for position in range(count):
            failed = position % 3 == 2
            evidence = b"" if failed else stream(f"evidence {count} {position}", 40)
            version = 0 if failed else 1 + position % 2
            items.append(
                {
                    "error": "cannot_decrypt" if failed else "",
                    "evidence": evidence.hex(),
                    "version": version,
                }
            )
        leaves = [
            reader.leaf(at, item["error"], item["version"], bytes.fromhex(item["evidence"]))
            for at, item in enumerate(items)
        ]
        texts = [leaf.decode() for leaf in leaves]
        rows.append({"items": items, "leaves": texts, "root": reader.root(leaves).hex()})
    return rows


def document() -> str:
    """Return the file's text."""
    ring = keys()
    contexts = [
        {"context": context, "encoded": reader.encoded_context(context).hex()}
        for context in CONTEXTS
    ]
    parts: Json = {
        "about": "Vectors for docs/ciphertext.md. All bytes are hexadecimal; material of RSA keys is "
        "PKCS#8 DER. What stands under `refused` must not decrypt; its name says why.",
        "keys": ring,
        "contexts": contexts,
        "ciphertexts": ciphertexts(ring),
        "refused": refused(ring),
        "derived_keys": derived(ring),
        "wrapped_keys": wrapped(ring),
        "batches": batches(),
    }
    return json.dumps(parts, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
