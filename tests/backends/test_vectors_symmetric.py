"""Secret keys against published vectors, through the key store: import, then the operation.

Ciphers with a random nonce are shown by decrypting, the rest both ways. Every one has vectors.
"""

from __future__ import annotations

import hmac

import pytest

from keys.algorithms import ALGORITHMS, SPECS
from keys.backends.software import symmetric
from keys.backends.software.backend import SoftwareBackend
from keys.errors import CannotDecrypt
from keys.secret import Secret
from tests.backends.published import imported, records, unhex

GCM = "ciphers/AES/GCM/"


@pytest.mark.parametrize(
    ("spec", "algorithm", "bits"),
    [("AES_128", "AES_128_GCM", 128), ("AES_256", "AES_256_GCM", 256)],
)
def test_gcm_of_nist(software: SoftwareBackend, spec: str, algorithm: str, bits: int) -> None:
    """CAVP: nonces of 96 bits and whole tags; a third of those of decryption are forged."""
    opened = refused = 0
    for file in (f"gcmDecrypt{bits}.rsp", f"gcmEncryptExtIV{bits}.rsp"):
        chosen = [
            row
            for row in records(GCM + file, "count")
            if (row["ivlen"], row["taglen"]) == ("96", "128")
        ]
        assert len(chosen) > 300
        for row in chosen[::5]:
            handle = imported(software, spec, unhex(row["key"])).handle
            sealed, aad = unhex(row["iv"] + row["ct"] + row["tag"]), unhex(row["aad"])
            if "fail" in row:
                refused += 1
                with pytest.raises(CannotDecrypt):
                    software.decrypt(handle, algorithm, sealed, aad)
            else:
                opened += 1
                assert software.decrypt(handle, algorithm, sealed, aad) == unhex(row["pt"])
    assert opened > 100
    assert refused > 10


def test_gcm_siv_of_rfc_8452(software: SoftwareBackend) -> None:
    """RFC 8452, C.2 and C.3 (counter wrap), as OpenSSL keeps them."""
    count = 0
    for row in records("ciphers/AES/GCM-SIV/openssl.txt", "count"):
        key = unhex(row["key"])
        if len(key) != 32 or not any(key):  # AES-128's, and a key of zeros, which no store takes
            continue
        handle = imported(software, "AES_256", key).handle
        sealed = unhex(row["iv"] + row["ciphertext"] + row["tag"])
        aad = unhex(row.get("aad", ""))
        opened = software.decrypt(handle, "AES_256_GCM_SIV", sealed, aad)
        assert opened == unhex(row.get("plaintext", ""))
        count += 1
    assert count >= 15


def test_siv_of_rfc_5297(software: SoftwareBackend) -> None:
    """RFC 5297, A.1 with AES-256 as OpenSSL keeps it: deterministic, so both ways."""
    (row,) = [
        row
        for row in records("ciphers/AES/SIV/openssl.txt", "count")
        if len(row["key"]) == 128 and "aad2" not in row
    ]
    handle = imported(software, "AES_SIV_512", unhex(row["key"])).handle
    sealed, aad = unhex(row["tag"] + row["ciphertext"]), unhex(row["aad"])
    plaintext = unhex(row["plaintext"])
    assert software.encrypt(handle, "AES_SIV_CMAC_512", plaintext, aad) == sealed
    assert software.decrypt(handle, "AES_SIV_CMAC_512", sealed, aad) == plaintext


def test_xchacha20_poly1305_of_its_draft(software: SoftwareBackend) -> None:
    """draft-irtf-cfrg-xchacha-03, A.3.1. It never became an RFC; libsodium made it the standard."""
    handle = imported(software, "XCHACHA20", bytes(range(0x80, 0xA0))).handle
    nonce = bytes(range(0x40, 0x58))
    sealed = nonce + unhex("""
        bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb
        731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452
        2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9
        21f9664c97637da9768812f615c68b13b52e c0875924c1c7987947deafd8780acf49
        """)
    opened = software.decrypt(
        handle, "XCHACHA20_POLY1305", sealed, unhex("50515253c0c1c2c3c4c5c6c7")
    )
    assert opened == (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )


NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"
# AWS-LC's vectors of XAES-256-GCM with key commitment (xaes_256_gcm_kc_tests.txt): key byte, nonce,
# plaintext, associated data, ciphertext, tag, commitment. The last two are C2SP's own, committed.
COMMITTING = [
    (
        1,
        b"\x42" * 24,
        b"Hello, XAES-256-GCM!",
        b"",
        "01e5f78bc99de880bd2eeff2870d361f0eab5b2f",
        "c55268f34b14045878fe3668db980319",
        "bf37571be1b43aeca64a95d99a2f162e24f8bfd79bbb71fa7d943e6fc060a8ae",
    ),
    (
        1,
        NONCE,
        b"XAES-256-GCM",
        b"",
        "ce546ef63c9cc60765923609",
        "b33a9a1974e96e52daf2fcf7075e2271",
        "04076b6085eebab138855fe57811c04112eff989d44120dfff662d5475a383c3",
    ),
    (
        3,
        NONCE,
        b"XAES-256-GCM",
        b"c2sp.org/XAES-256-GCM",
        "986ec1832593df5443a17943",
        "7fd083bf3fdb41abd740a21f71eb769d",
        "5553cd21d1592b422e3129632a3187eee8a658cdca5c5b32ce86308dcc18e9d1",
    ),
]


@pytest.mark.parametrize("vector", COMMITTING)
def test_committing_xaes_of_aws_lc(
    software: SoftwareBackend, vector: tuple[int, bytes, bytes, bytes, str, str, str]
) -> None:
    byte, nonce, plaintext, aad, ciphertext, tag, commitment = vector
    handle = imported(software, "AES_256", bytes([byte]) * 32).handle
    sealed = nonce + unhex(commitment) + unhex(ciphertext) + unhex(tag)
    assert software.decrypt(handle, "XAES_256_GCM", sealed, aad) == plaintext
    # The scheme's own order of the parts is not ours: the commitment stands in front.
    with pytest.raises(CannotDecrypt):
        software.decrypt(handle, "XAES_256_GCM", nonce + unhex(ciphertext + tag + commitment), aad)


@pytest.mark.parametrize(("spec", "bits"), [("AES_128", 128), ("AES_256", 256)])
def test_key_wrap_with_padding_of_nist(software: SoftwareBackend, spec: str, bits: int) -> None:
    """CAVP, SP 800-38F: KWP-AE wraps, KWP-AD unwraps or is refused."""
    wrapped = refused = 0
    for row in list(records(f"keywrap/kwtestvectors/KWP_AE_{bits}.txt", "count"))[::5]:
        handle = imported(software, spec, unhex(row["k"])).handle
        assert software.wrap(handle, "AES_KWP", unhex(row["p"])) == unhex(row["c"])
        wrapped += 1
    for row in list(records(f"keywrap/kwtestvectors/KWP_AD_{bits}.txt", "count"))[::5]:
        handle = imported(software, spec, unhex(row["k"])).handle
        if "fail" in row:
            refused += 1
            with pytest.raises(CannotDecrypt):
                software.unwrap(handle, "AES_KWP", unhex(row["c"]))
        else:
            assert software.unwrap(handle, "AES_KWP", unhex(row["c"])) == unhex(row["p"])
    assert wrapped >= 100
    assert refused >= 10


@pytest.mark.parametrize("bits", [224, 256, 384, 512])
def test_hmac_of_rfc_4231(software: SoftwareBackend, bits: int) -> None:
    """Test cases 1 to 4: their keys, padded with zeros, which is what HMAC itself does (RFC 2104, 2).

    The others' keys are longer than a block, and no key here is.
    """
    spec, count = SPECS[f"HMAC_{bits}"], 0
    for row in records(f"HMAC/rfc-4231-sha{bits}.txt", "len"):
        key = unhex(row["key"])
        if len(key) > spec.bits // 8:
            continue
        handle = imported(software, spec.name, key.ljust(spec.bits // 8, b"\x00")).handle
        algorithm, message, tag = f"HMAC_SHA_{bits}", unhex(row["msg"]), unhex(row["md"])
        assert software.mac(handle, algorithm, message) == tag
        assert software.verify_mac(handle, algorithm, message, tag)
        count += 1
    assert count == 4


def test_hkdf_of_rfc_5869() -> None:
    """A.1 to A.3. Their input keys have no spec's length, so this is the store's function beneath."""
    count = 0
    for row in records("KDF/rfc-5869-HKDF-SHA256.txt", "count"):
        derived = symmetric.derive(
            Secret(unhex(row["ikm"])),
            ALGORITHMS["HKDF_SHA_256"],
            salt=unhex(row["salt"]),
            info=unhex(row["info"]),
            length=int(row["l"]),
        )
        assert derived == unhex(row["okm"])
        count += 1
    assert count == 3


# Wycheproof's (C2SP), hkdf_sha384_test.json and hkdf_sha512_test.json, cases 2, 11 and 12: RFC 5869
# has none of these hashes.
HKDF = [
    ("384", "a23632e18ec76b59b1c87008da3f8a7e", "", "",
     "46cddd93b528a7b2df07a3d21e809d8980e1bf8faebfa48199779626ddbe925781ce9fc8de6b27eaeec7"),
    ("384", "0cbd136d66d15a4ffefde1303b430821", "2614d80275b08a1cf90bae0eb607d4d5",
     "ee991de21aeb6baa6a5f683dbb755e6f80db1c1d",
     "e618b91d9f3d10c007958d025841a3347947eb41b23ec35a3d7927aad74f293c50405a56911d8158e74f"),
    ("512", "a23632e18ec76b59b1c87008da3f8a7e", "", "",
     "c4af93d4bae9ca2b45f590cd3d2f539ff5749d7b0864fbe44a438d38a2f8e5afe01641145e389c989766"),
    ("512", "0cbd136d66d15a4ffefde1303b430821", "2614d80275b08a1cf90bae0eb607d4d5",
     "ee991de21aeb6baa6a5f683dbb755e6f80db1c1d",
     "e51c3bfe5f4e9b4fb0d3c3a67bb33a20c288800e03707621cf143e8581d422dfec3fe658ba8fa2e35c2c"),
]  # fmt: skip


@pytest.mark.parametrize("vector", HKDF)
def test_hkdf_of_wycheproof(vector: tuple[str, str, str, str, str]) -> None:
    bits, key, salt, info, expected = vector
    derived = symmetric.derive(
        Secret(unhex(key)),
        ALGORITHMS[f"HKDF_SHA_{bits}"],
        salt=unhex(salt),
        info=unhex(info),
        length=42,
    )
    assert derived == unhex(expected)


def test_hkdf_through_the_store_is_extract_and_expand(software: SoftwareBackend) -> None:
    """RFC 5869, 2.2 and 2.3, written out for one block: what the store adds is the key."""
    for bits, digest in ((256, "sha256"), (384, "sha384"), (512, "sha512")):
        key = bytes(range(1, bits // 8 + 1))
        handle = imported(software, f"HMAC_{bits}", key).handle
        pseudorandom = hmac.digest(b"salt", key, digest)
        expected = hmac.digest(pseudorandom, b"info\x01", digest)
        assert (
            software.derive(
                handle, f"HKDF_SHA_{bits}", salt=b"salt", info=b"info", length=bits // 8
            )
            == expected
        )
