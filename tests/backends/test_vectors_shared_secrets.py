"""Key agreement, key encapsulation and HPKE against published vectors, through the key store."""

from __future__ import annotations

import hashlib
import hmac
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM1024PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keys.algorithms import SPECS
from keys.backends import materials
from keys.backends.software.backend import SoftwareBackend
from keys.errors import Invalid
from keys.primitives import der, x_wing
from keys.primitives.post_quantum import ML_KEM_512_OID
from tests.backends.published import document, imported, records, unhex

CURVES = {
    "EC": ("ECC_NIST_P256", ec.SECP256R1()),
    "ED": ("ECC_NIST_P384", ec.SECP384R1()),
    "EE": ("ECC_NIST_P521", ec.SECP521R1()),
}
ECDH = "asymmetric/ECDH/KASValidityTest_ECCStaticUnified_NOKC_ZZOnly_"


@pytest.mark.parametrize("side", ["init", "resp"])
def test_ecdh_of_nist(software: SoftwareBackend, side: str) -> None:
    """CAVP, SP 800-56A: agreed secrets that are right, peers that are not on the curve, others' Z."""
    agreed = refused = differing = 0
    for row in records(f"{ECDH}{side}.fax", "count"):
        spec, curve = CURVES.get(row["section"][:2], ("", None))
        if curve is None or "IUT" in row["result"]:
            continue
        private = ec.derive_private_key(int(row["dsiut"], 16), curve)
        handle = imported(software, spec, private).handle
        peer = _on(curve, int(row["qscavsx"], 16), int(row["qscavsy"], 16))
        if row["result"].startswith("P"):
            agreed += 1
            assert software.agree(handle, "ECDH", peer) == unhex(row["z"])
        elif "Z changed" in row["result"]:
            differing += 1
            assert software.agree(handle, "ECDH", peer) != unhex(row["z"])
        else:  # the peer's public key is what was spoilt
            refused += 1
            with pytest.raises(Invalid):
                software.agree(handle, "ECDH", peer)
    assert agreed >= 20
    assert differing + refused >= 6


def test_ecdh_with_a_point_that_is_not_on_the_curve_is_refused(
    software: SoftwareBackend,
) -> None:
    for spec, curve in CURVES.values():
        handle = software.generate(uuid.uuid4(), spec).handle
        good = ec.generate_private_key(curve).public_key().public_numbers()
        for x, y in ((good.x, good.y + 1), (good.x + 1, good.y), (0, 0), (1, 1)):
            with pytest.raises(Invalid):
                software.agree(handle, "ECDH", _on(curve, x, y))


def _on(curve: ec.EllipticCurve, x: int, y: int) -> bytes:
    """A SubjectPublicKeyInfo of this curve with any point: one of ours, its end replaced."""
    size = (curve.key_size + 7) // 8
    point = b"\x04" + x.to_bytes(size, "big") + y.to_bytes(size, "big")
    valid = materials.public_der(ec.generate_private_key(curve))
    return valid[: len(valid) - len(point)] + point


# SECG's curve has no vectors in the package; Wycheproof's ecdh_secp256k1_test.json, case 1.
def test_ecdh_on_secp256k1_of_wycheproof(software: SoftwareBackend) -> None:
    private = ec.derive_private_key(
        0xF4B7FF7CCCC98813A69FAE3DF222BFE3F4E28F764BF91B4A10D8096CE446B254, ec.SECP256K1()
    )
    peer = unhex("""
        3056301006072a8648ce3d020106052b8104000a03420004
        d8096af8a11e0b80037e1ee68246b5dcbb0aeb1cf1244fd767db80f3fa27da2b
        396812ea1686e7472e9692eaf3e958e50e9500d3b4c77243db1f2acd67ba9cc4
        """)
    handle = imported(software, "ECC_SECG_P256K1", private).handle
    assert software.agree(handle, "ECDH", peer) == unhex(
        "544dfae22af6af939042b1d85b71a1e49e9a5614123c4d6ad0c8af65baf87d65"
    )


def test_x25519_of_rfc_7748(software: SoftwareBackend) -> None:
    """RFC 7748, 5.2, as far as its inputs are keys that the library takes for points."""
    count = 0
    for row in records("asymmetric/X25519/rfc7748.txt", "count"):
        private = X25519PrivateKey.from_private_bytes(unhex(row["input_scalar"]))
        peer = materials.public_der(X25519PublicKey.from_public_bytes(unhex(row["input_u"])))
        handle = imported(software, "X25519", private).handle
        assert software.agree(handle, "ECDH", peer) == unhex(row["output_u"])
        count += 1
    assert count >= 3


# --- key encapsulation


@pytest.mark.parametrize("bits", [512, 768, 1024])
def test_ml_kem_known_answers(software: SoftwareBackend, bits: int) -> None:
    """FIPS 203: the pair of a seed, what a ciphertext holds, and what a forged one gives."""
    rows = list(records(f"asymmetric/MLKEM/kat_MLKEM_{bits}.rsp", "count"))
    assert len(rows) >= 10
    for row in rows[:10]:
        seed, spec = unhex(row["d"] + row["z"]), f"ML_KEM_{bits}"
        if bits == 512:  # its library takes the expanded key
            encoded = der.private_key_info(ML_KEM_512_OID, der.octet_string(unhex(row["sk"])))
            material = imported(software, spec, encoded)
        else:
            kind = MLKEM768PrivateKey if bits == 768 else MLKEM1024PrivateKey
            material = imported(software, spec, kind.from_seed_bytes(seed))
        assert material.public_key is not None
        assert material.public_key.endswith(unhex(row["pk"]))
        decapsulated = software.decapsulate(material.handle, "ML_KEM", unhex(row["ct"]))
        assert decapsulated == unhex(row["ss"])
        rejected = software.decapsulate(material.handle, "ML_KEM", unhex(row["ct_n"]))
        assert rejected == unhex(row["ss_n"])


# draft-connolly-cfrg-xwing-kem-10, appendix C, the first vector; of the public key its two ends.
X_WING_SEED = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"
X_WING_PUBLIC = ("e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5",
                 "eff389b27dce59844570216223593d4ba32d9abac8cd049040ef6534")  # fmt: skip
X_WING_SECRET = "d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384"
X_WING_CIPHERTEXT = """
b83aa828d4d62b9a83ceffe1d3d3bb1ef31264643c070c5798927e41fb07914a273f8f96
e7826cd5375a283d7da885304c5de0516a0f0654243dc5b97f8bfeb831f68251219aabdd
723bc6512041acbaef8af44265524942b902e68ffd23221cda70b1b55d776a92d1143ea3
a0c475f63ee6890157c7116dae3f62bf72f60acd2bb8cc31ce2ba0de364f52b8ed38c79d
719715963a5dd3842d8e8b43ab704e4759b5327bf027c63c8fa857c4908d5a8a7b88ac7f
2be394d93c3706ddd4e698cc6ce370101f4d0213254238b4a2e8821b6e414a1cf20f6c12
44b699046f5a01caa0a1a55516300b40d2048c77cc73afba79afeea9d2c0118bdf2adb88
70dc328c5516cc45b1a2058141039e2c90a110a9e16b318dfb53bd49a126d6b73f215787
517b8917cc01cabd107d06859854ee8b4f9861c226d3764c87339ab16c3667d2f49384e5
5456dd40414b70a6af841585f4c90c68725d57704ee8ee7ce6e2f9be582dbee985e038ff
c346ebfb4e22158b6c84374a9ab4a44e1f91de5aac5197f89bc5e5442f51f9a5937b102b
a3beaebf6e1c58380a4a5fedce4a4e5026f88f528f59ffd2db41752b3a3d90efabe46389
9b7d40870c530c8841e8712b733668ed033adbfafb2d49d37a44d4064e5863eb0af0a08d
47b3cc888373bc05f7a33b841bc2587c57eb69554e8a3767b7506917b6b70498727f16ea
c1a36ec8d8cfaf751549f2277db277e8a55a9a5106b23a0206b4721fa9b3048552c5bd5b
594d6e247f38c18c591aea7f56249c72ce7b117afcc3a8621582f9cf71787e183dee0936
7976e98409ad9217a497df888042384d7707a6b78f5f7fb8409e3b535175373461b77600
2d799cbad62860be70573ecbe13b246e0da7e93a52168e0fb6a9756b895ef7f0147a0dc8
1bfa644b088a9228160c0f9acf1379a2941cd28c06ebc80e44e17aa2f8177010afd78a97
ce0868d1629ebb294c5151812c583daeb88685220f4da9118112e07041fcc24d5564a99f
dbde28869fe0722387d7a9a4d16e1cc8555917e09944aa5ebaaaec2cf62693afad42a3f5
18fce67d273cc6c9fb5472b380e8573ec7de06a3ba2fd5f931d725b493026cb0acbd3fe6
2d00e4c790d965d7a03a3c0b4222ba8c2a9a16e2ac658f572ae0e746eafc4feba023576f
08942278a041fb82a70a595d5bacbf297ce2029898a71e5c3b0d1c6228b485b1ade509b3
5fbca7eca97b2132e7cb6bc465375146b7dceac969308ac0c2ac89e7863eb8943015b243
14cafb9c7c0e85fe543d56658c213632599efabfc1ec49dd8c88547bb2cc40c9d38cbd30
99b4547840560531d0188cd1e9c23a0ebee0a03d5577d66b1d2bcb4baaf21cc7fef1e038
06ca96299df0dfbc56e1b2b43e4fc20c37f834c4af62127e7dae86c3c25a2f696ac8b589
dec71d595bfbe94b5ed4bc07d800b330796fda89edb77be0294136139354eb8cd3759157
8f9c600dd9be8ec6219fdd507adf3397ed4d68707b8d13b24ce4cd8fb22851bfe9d63240
7f31ed6f7cb1600de56f17576740ce2a32fc5145030145cfb97e63e0e41d354274a079d3
e6fb2e15
"""
X_WING_KEY_ENCODED = (
    # x509/xwing.priv beside the draft: the seed 00 01 02 … 1f in PKCS#8.
    "3034020100300d060b2b0601040183e62d81c87a0420"
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)


def test_x_wing_of_its_draft(software: SoftwareBackend) -> None:
    encoded = der.private_key_info(x_wing.OID, unhex(X_WING_SEED))
    material = imported(software, "X_WING", encoded)
    assert material.public_key is not None
    raw = der.read_public_key(x_wing.OID, material.public_key)
    assert len(raw) == 1216
    assert raw.startswith(unhex(X_WING_PUBLIC[0]))
    assert raw.endswith(unhex(X_WING_PUBLIC[1]))
    secret = software.decapsulate(material.handle, "X_WING", unhex(X_WING_CIPHERTEXT))
    assert secret == unhex(X_WING_SECRET)
    assert x_wing.XWingPrivateKey.from_seed(bytes(range(32))).der() == unhex(X_WING_KEY_ENCODED)


def hpke_rows(kem: int, kdf: int) -> list[dict[str, object]]:
    rows = document("HPKE/hpke-pq-test-vectors.json")
    return [row for row in rows if (row["kem_id"], row["kdf_id"]) == (kem, kdf)]


def test_x_wing_of_hpkes_vectors(software: SoftwareBackend) -> None:
    """draft-ietf-hpke-pq: the KEM 0x647a is X-Wing; its whole public key and its shared secret."""
    rows = [row for kdf in (1, 17) for row in hpke_rows(0x647A, kdf)]
    assert len(rows) == 2
    for row in rows:
        encoded = der.private_key_info(x_wing.OID, unhex(str(row["skRm"])))
        material = imported(software, "X_WING", encoded)
        assert material.public_key is not None
        assert der.read_public_key(x_wing.OID, material.public_key) == unhex(str(row["pkRm"]))
        secret = software.decapsulate(material.handle, "X_WING", unhex(str(row["enc"])))
        assert secret == unhex(str(row["shared_secret"]))


def key_schedule(
    secret: bytes, info: bytes, kem: int, aead: int, key_bytes: int
) -> tuple[bytes, bytes]:
    """HPKE's key and base nonce in base mode with HKDF-SHA-256 (RFC 9180, 4 and 5.1), written out."""
    suite = b"HPKE" + kem.to_bytes(2, "big") + (1).to_bytes(2, "big") + aead.to_bytes(2, "big")

    def extract(salt: bytes, label: bytes, key: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + key, "sha256")

    def expand(prk: bytes, label: bytes, context: bytes, length: int) -> bytes:
        framed = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(prk, framed + b"\x01", "sha256")[:length]

    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    prk = extract(secret, b"secret", b"")
    return expand(prk, b"key", context, key_bytes), expand(prk, b"base_nonce", context, 12)


def test_hpke_with_x_wing_by_its_published_parts(software: SoftwareBackend) -> None:
    """The suite of keys here (HKDF-SHA-256, AES-256-GCM) has no published vector of its own.

    The published one of the same KEM and KDF has another cipher: it shows that the key schedule
    written out above is right. With it, and with X-Wing as it is here, a ciphertext made by hand
    opens in the store, and the store's own opens by hand: so the library's hybrid KEM is X-Wing.
    """
    (row,) = hpke_rows(0x647A, 1)
    shared = unhex(str(row["shared_secret"]))
    key, nonce = key_schedule(shared, unhex(str(row["info"])), 0x647A, 3, 32)
    assert (key, nonce) == (unhex(str(row["key"])), unhex(str(row["base_nonce"])))

    encoded = der.private_key_info(x_wing.OID, unhex(str(row["skRm"])))
    material = imported(software, "X_WING", encoded)
    enc = unhex(str(row["enc"]))
    algorithm = "HPKE_X_WING_HKDF_SHA_256_AES_256_GCM"
    key, nonce = key_schedule(shared, b"", 0x647A, 2, 32)
    by_hand = enc + AESGCM(key).encrypt(nonce, b"a key", b"")
    assert software.unwrap(material.handle, algorithm, by_hand) == b"a key"

    wrapped = software.wrap(material.handle, algorithm, b"another key")
    secret = software.decapsulate(material.handle, "X_WING", wrapped[:1120])
    key, nonce = key_schedule(secret, b"", 0x647A, 2, 32)
    assert AESGCM(key).decrypt(nonce, wrapped[1120:], b"") == b"another key"

    assert material.public_key is not None
    fresh, ciphertext = materials.encapsulate(SPECS["X_WING"], material.public_key)
    key, nonce = key_schedule(fresh, b"", 0x647A, 2, 32)
    made = ciphertext + AESGCM(key).encrypt(nonce, b"a third", b"")
    assert software.unwrap(material.handle, algorithm, made) == b"a third"


def test_x_wings_combiner_is_the_drafts() -> None:
    """5.3: SHA3-256 over both secrets, the curve's ciphertext and key, and the label, in this order."""
    assert x_wing.LABEL.hex() == "5c2e2f2f5e5c"
    pair = x_wing.XWingPrivateKey.from_seed(bytes(range(32)))
    secret, ciphertext = pair.public_key().encapsulate()
    sent = ciphertext[1088:]
    parts = (
        pair.kem.decapsulate(ciphertext[:1088])
        + pair.curve.exchange(X25519PublicKey.from_public_bytes(sent))
        + sent
        + pair.curve.public_key().public_bytes_raw()
        + x_wing.LABEL
    )
    assert secret == hashlib.sha3_256(parts).digest()
