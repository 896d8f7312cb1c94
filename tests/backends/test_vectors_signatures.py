"""RSA, ECDSA, Edwards curves and ML-DSA against published vectors, through the key store.

What is deterministic is signed, the rest verified. SLH-DSA has a file of its own.
"""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA65PrivateKey,
    MLDSA87PrivateKey,
)
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keys.algorithms import ALGORITHMS, MessageType
from keys.backends import materials
from keys.backends.software.backend import SoftwareBackend
from keys.errors import CannotDecrypt
from tests.backends.published import imported, lines, records, unhex
from tests.backends.uses import mu_of

RSA = "asymmetric/RSA/"


def rsa_key(n: int, e: int, d: int, p: int, q: int) -> rsa.RSAPrivateKey:
    public = rsa.RSAPublicNumbers(e, n)
    parts = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, *parts, public).private_key()


def rsa_of(row: dict[str, str]) -> rsa.RSAPrivateKey:
    n, p, q, e, d = (int(row[name], 16) for name in ("n", "p", "q", "e", "d"))
    return rsa_key(n, e, d, p, q)


@pytest.mark.parametrize("bits", [2048, 3072])
def test_rsa_pkcs1_v1_5_of_nist(software: SoftwareBackend, bits: int) -> None:
    """CAVP, FIPS 186-3 SigVer15: with the private key, so that a valid one is made again too."""
    valid: set[str] = set()
    invalid = 0
    handles: dict[str, str] = {}
    of_key: dict[str, str] = {}
    for line in records(RSA + "FIPS_186-2/SigVer15_186-3.rsp", "shaalg"):
        of_key |= {name: line[name] for name in ("n", "p", "q") if name in line}
        row = of_key | line
        algorithm = f"RSASSA_PKCS1_V1_5_SHA_{row.get('shaalg', '').removeprefix('SHA')}"
        # An exponent below 2^16 is one that no import takes (FIPS 186-5, A.1.1).
        if row["mod"] != str(bits) or algorithm not in ALGORITHMS or int(row["e"], 16) < 65537:
            continue
        if "Public Key e changed" in row["result"]:
            continue
        pair = row["n"] + row["e"]
        if pair not in handles:
            handles[pair] = imported(software, f"RSA_{bits}", rsa_of(row)).handle
        message, signature = unhex(row["msg"]), unhex(row["s"])
        if row["result"].startswith("P"):
            valid.add(algorithm)
            assert software.verify(handles[pair], algorithm, message, signature)
            assert software.sign(handles[pair], algorithm, message) == signature
        else:
            invalid += 1
            assert not software.verify(handles[pair], algorithm, message, signature)
    assert len(valid) == 3, valid
    assert invalid >= 9


# Wycheproof's (C2SP), rsa_pss_…_test.json, case 3 (the message is "Test"): salts as long as the
# digest, which is what FIPS 186-5 and every other service have. CAVP's have salts of 0 and 10 bytes.
PSS = [
    (
        "RSASSA_PSS_SHA_256",
        """
        a2b451a07d0aa5f96e455671513550514a8a5b462ebef717094fa1fee82224e637f9746d3f7cafd31878d80325b6ef5a
        1700f65903b469429e89d6eac8845097b5ab393189db92512ed8a7711a1253facd20f79c15e8247f3d3e42e46e48c98e
        254a2fe9765313a03eff8f17e1a029397a1fa26a8dce26f490ed81299615d9814c22da610428e09c7d9658594266f5c0
        21d0fceca08d945a12be82de4d1ece6b4c03145b5d3495d4ed5411eb878daf05fd7afc3e09ada0f1126422f590975a19
        69816f48698bcbba1b4d9cae79d460d8f9f85e7975005d9bc22c4e5ac0f7c1a45d12569a62807d3b9a02e5a530e77306
        6f453d1f5b4c2e9cf7820283f742b9d5
        """,
        """
        401eb03cdb47ca88033e3030f6bdecbac8f5c8fc1dd6a13d23d379ed9a2b309891d13d74fea9d21d159b9e6d8f37efa2
        489962e24555f56dd434ff1d31ce4f9f5abd3f22cbea8b691d6a11e44efb83e2bca155e6a164325e0fde2a8865afd5c9
        f51161a9d615f62af7ec2e31b3e5ab649c164490d31d88cfae35b84aea7925690f929a144b6d2f48e8fb894a52deecd1
        b9a6496990c4ecf1588699a42cacd10c53af350514e4291ea9a058e77f101e32c1c0cefa61d945f7bc931f8bd19e7ba3
        169358a60e5a8b0123bc3199b9fdcafe8e519c41ba675491a27b85e44ef2d77277c10fe107293c8290186913bc9a99b6
        40d8da041b64f31eab1d35920985f4a5
        """,
    ),
    (
        "RSASSA_PSS_SHA_384",
        """
        cda6fa5ca76bfe0492ec57e0a3bfff7272dc8d1e25ad1fb338aa050f02c104e63133d6b5b7c4985ebbae9ac036a5b9c0
        3074d60aec8e25baf392a0c430ff05b88e948805d3dd74511d8885250a7b574215ada015c559076686e253ccc96c0815
        b1291ee787cc3363b4f77d930eb998d7c582b24cea9ce21de9722791989863a27ebc80a00de5bd2f9228775e5a4ceb05
        4d58c9be36a054336971a13642dd9510dd696aa268db3aab2299d5d88f8e562434d1427094d3df8e72d1ef69b4ed34d1
        2bac375223b2a25cf227f735f816e85e17239304769a6082154cd15899fc1eaefb69b748a3e5ed24d38372597de3e4e2
        a27b951d6ac7db182d6809d8ff511b7f
        """,
        """
        1ad8f3e3e3327398960ed19275c2cdf187001516a6116b7ba2ce301ac4952f1d180e08731eeb14e5e94d49ec6c79a31c
        ae6d256e32f01980cdbfcb34feeda260048c371358cbb70a73b5da7aa245a83372d543383a0eeb58e7602144f70e7858
        dcfd04592b2bfc5b83ed58170bf692d00e546d8a734a726df499816d6e2829fc7028850a2732a1261f2b8448b3020d29
        b27ed1fab22c932ddf85ea7ca9bab730653cd59505e0bfc1344a46e6f9dfe6e68f98ae2cad303367f598b8845801c8b2
        74117d28f8393504b7a32c9ffc64bd42c2759f64157c3f8033e67e5285e94ff992692424869ed0d24a9d003670532002
        da0c2f9df524b1bc3b23b9a78f5b53ef
        """,
    ),
    (
        "RSASSA_PSS_SHA_512",
        """
        c9a765c2661b4674cff3480e9a5e462ad0ad2fc9bc6fbef62847b3113d20991f653967971c28252753f5fbacce012c2a
        8ab592914d269efafa724fa4b920e340930c106f7b36f79cebf0e62e88e0e476888e9f0e22186acdb6c4523a232b65b4
        ff2cc22dc44f8a559527d79d7cd7dcf3773212f7bb9aa133c31165cc663690bf123d73923c838929ccafee59d6c7095b
        8d4a74baf2d192c9a4e87c4e12bc58013078b28a7789e82e9f31de1f4d6a2aa6e80632be8e4bdf263e8d49b09416fb19
        c488c07ad8af722ab79182b23028a71e065d02412a9eebc46d7d8f4e03d79238d8c0cb4a97a9a1200ebb6ec64042ebec
        cad9567526eeef12c17d94c1049c889970b96e94cc353172a268a49c5e8bee13c15b39dec44f2c7a1aa37a7a0b6f7229
        0acada32b1d8af1fc3dc8a89487ba81347cbeb1350925d30f923958106b49959c871e7c1dba55da0772e362cf8621d78
        610868b894e16e5dfec96874a93a4cf379b47e7e318ce315066d70ee3938140a60148f205085cef8a7700ca3c53d52a5
        756a63b3b16f153062b61262a68496210c8be4ef3f9029ca0ea0e3b3a0d5d6d226edbbf44daf8f045dc286ded3c4ec4d
        b6b45347079f33eaf98e3c95b4b60e79ef4a3093feec543703422ba74a118511c2193b54fe8b633866ed2c705ccbc6e7
        d9d3656809ec3d3356e7400a9648ec37505041e3e31af1c02eefe924a67047d3
        """,
        """
        0f74856dae37f6bab27af25a8773ffe42690665ca130a710998e6f9f741d30dd66bbbcdcbb490b1fa69e39af6b169b28
        038fc4addc95aa92e2b67a76569bd3acc76ca48437c7552ca7dfd379fab037d54df496b05b431bb925416cd4dc2402fa
        a060996d57578519c34de2386c9d0ddbeb708453e50c08a8ec182c75549e9dea0bf75fd3347b228e2f977b81c1be11c7
        38d23ee2e58f15e803f5539e82155ba6327ab807ad6e0ea36b9a19ef68fbe7e3b55b7910f68aafc719e2106b4a3cc8ad
        b62e38cdf43f7ab295846a56b26ed8087b2c0e9cd9c2d6cd8302aa0c26254b1db330bcac520afb932eaac07ec0604ff5
        6f081af44994492c176298127a94d9eaccf23732ea95700ebb4b657fcdbc52ebc6bc404795f63b4f0fd2a1d6787d698d
        2506b7b37c1f49f8ec1563320fc017fdd76269fe61bff0089900d146e2000113ab6d8aae248344d19bf0549e8320de0f
        226fe46ee4c03250770d8701b7eb0e63b816f566411c55f7724c0e8d94b0b752bbe9f445c78ae4b780781c9bcfc5141b
        1e46c767a51990af256391fbac9f4302aaab11928a2ed36ea775c0c953d0d5a4d739c37ffef8863cc1b70481410e29cb
        7ac99a3c4c6d47c322af8de1b39a17da4ea432d62249b6c35f50c8fade0dc96cb8e946a8008db7a72dfe5e4ce4392d41
        60cf75c46956e66887d82d7e31649075a86c3ecb4a936dc331e78337d5648318
        """,
    ),
]


@pytest.mark.parametrize("vector", PSS, ids=[row[0] for row in PSS])
def test_rsa_pss_of_wycheproof(vector: tuple[str, str, str]) -> None:
    """Public keys only, so this is the function that verify() calls."""
    name, modulus, signature = vector
    key = rsa.RSAPublicNumbers(65537, int.from_bytes(unhex(modulus), "big")).public_key()
    algorithm = ALGORITHMS[name]
    assert materials.verify_signature(key, algorithm, b"Test", unhex(signature))
    digest = hashlib.new(algorithm.digest, b"Test").digest()
    assert materials.verify_signature(key, algorithm, digest, unhex(signature), MessageType.DIGEST)
    assert not materials.verify_signature(key, algorithm, b"Tess", unhex(signature))


# --- RSA-OAEP


def oaep_examples(path: str, bits: int) -> tuple[rsa.RSAPrivateKey, list[tuple[bytes, bytes]]]:
    """The last key of that size in a file of RSA Security's layout; its messages and ciphertexts."""
    found: dict[str, list[tuple[bytes, bytes]]] = {}
    keys: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    name = ""
    for line in [*lines(path), "# end"]:
        if line.startswith("#"):
            if name == "encryption":
                keys[fields["modulus"]] = dict(fields)
                pair = unhex(fields["message"]), unhex(fields["encryption"])
                found.setdefault(fields["modulus"], []).append(pair)
            name = line.strip("# :").lower()
            fields[name] = ""
        elif name and not line.startswith("="):
            fields[name] += "".join(line.split())
    modulus = [text for text in found if int(text, 16).bit_length() == bits][-1]
    names = ("modulus", "public exponent", "exponent", "prime 1", "prime 2")
    return rsa_key(*(int(keys[modulus][part], 16) for part in names)), found[modulus]


@pytest.mark.parametrize(
    ("algorithm", "path"),
    [
        ("RSAES_OAEP_SHA_1", "pkcs-1v2-1d2-vec/oaep-vect.txt"),
        ("RSAES_OAEP_SHA_256", "oaep-custom/oaep-sha256-sha256.txt"),
        ("RSAES_OAEP_SHA_384", "oaep-custom/oaep-sha384-sha384.txt"),
        ("RSAES_OAEP_SHA_512", "oaep-custom/oaep-sha512-sha512.txt"),
    ],
)
def test_rsa_oaep(software: SoftwareBackend, algorithm: str, path: str) -> None:
    """RSA Security's for SHA-1; for SHA-2 pyca's, made from them and checked with Bouncy Castle."""
    key, examples = oaep_examples(RSA + path, 2048)
    handle = imported(software, "RSA_2048", key).handle
    assert len(examples) >= 4
    for message, ciphertext in examples:
        assert software.decrypt(handle, algorithm, ciphertext, b"") == message
        assert software.unwrap(handle, algorithm, ciphertext) == message
        with pytest.raises(CannotDecrypt):
            software.decrypt(handle, algorithm, ciphertext, b"label")


def test_rsa_oaep_with_a_label(software: SoftwareBackend) -> None:
    """BoringSSL's, with SHA-512 and a label."""
    row = {
        name.lower(): value
        for name, _, value in (line.partition(" = ") for line in lines(RSA + "oaep-label.txt"))
    }
    handle = imported(software, "RSA_2048", unhex(row["key"])).handle
    label, ciphertext = unhex(row["oaeplabel"]), unhex(row["input"])
    expected = row["output"].strip('"').encode()
    assert software.decrypt(handle, "RSAES_OAEP_SHA_512", ciphertext, label) == expected
    with pytest.raises(CannotDecrypt):
        software.decrypt(handle, "RSAES_OAEP_SHA_512", ciphertext, b"")


# --- elliptic curves


@pytest.mark.parametrize(
    ("spec", "section", "algorithm", "path"),
    [
        ("ECC_NIST_P256", "P-256,SHA-256", "ECDSA_SHA_256", "FIPS_186-3/SigGen.txt"),
        ("ECC_NIST_P384", "P-384,SHA-384", "ECDSA_SHA_384", "FIPS_186-3/SigGen.txt"),
        ("ECC_NIST_P521", "P-521,SHA-512", "ECDSA_SHA_512", "FIPS_186-3/SigGen.txt"),
        ("ECC_SECG_P256K1", "K-256,SHA-256", "ECDSA_SHA_256", "SECP256K1/SigGen.txt"),
    ],
)
def test_ecdsa(
    software: SoftwareBackend, spec: str, section: str, algorithm: str, path: str
) -> None:
    """CAVP for NIST's curves; for secp256k1 those that pyca made and checked elsewhere."""
    rows = [row for row in records(f"asymmetric/ECDSA/{path}", "msg") if row["section"] == section]
    assert len(rows) >= 10
    for row in rows[:10]:
        private = ec.derive_private_key(int(row["d"], 16), materials.CURVES[_curve(spec)])
        numbers = private.public_key().public_numbers()
        assert (numbers.x, numbers.y) == (int(row["qx"], 16), int(row["qy"], 16))
        handle, message = imported(software, spec, private).handle, unhex(row["msg"])
        signature = encode_dss_signature(int(row["r"], 16), int(row["s"], 16))
        assert software.verify(handle, algorithm, message, signature)
        assert not software.verify(handle, algorithm, message + b"\x00", signature)
        assert software.verify(
            handle, algorithm, message, software.sign(handle, algorithm, message)
        )


def _curve(spec: str) -> str:
    return materials.spec_named(spec).curve


def test_ed25519_of_its_authors(software: SoftwareBackend) -> None:
    """The file of 1,024 of ed25519.cr.yp.to, of which RFC 8032's are some; every 32nd."""
    rows = [line.split(":") for line in lines("asymmetric/Ed25519/sign.input") if line]
    assert len(rows) == 1024
    for secret, public, message, signed, _ in rows[::32]:
        private = Ed25519PrivateKey.from_private_bytes(unhex(secret)[:32])
        material = imported(software, "ECC_NIST_EDWARDS25519", private)
        assert material.public_key is not None
        assert material.public_key.endswith(unhex(public))
        signature = unhex(signed)[:64]
        made = software.sign(material.handle, "ED25519_SHA_512", unhex(message))
        assert made == signature
        assert software.verify(material.handle, "ED25519_SHA_512", unhex(message), signature)


def test_ed448_of_rfc_8032(software: SoftwareBackend) -> None:
    """RFC 8032, 7.4, without the one that has a context."""
    rows = [
        row for row in records("asymmetric/Ed448/rfc8032.txt", "count") if not row.get("context")
    ]
    assert len(rows) >= 8
    for row in rows:
        private = Ed448PrivateKey.from_private_bytes(unhex(row["secret"]))
        material = imported(software, "ECC_NIST_EDWARDS448", private)
        assert material.public_key is not None
        assert material.public_key.endswith(unhex(row["public"]))
        made = software.sign(material.handle, "ED448_SHAKE_256", unhex(row["message"]))
        assert made == unhex(row["signature"])
        assert software.verify(material.handle, "ED448_SHAKE_256", unhex(row["message"]), made)


# --- ML-DSA


@pytest.mark.parametrize("level", [44, 65, 87])
def test_ml_dsa_known_answers(software: SoftwareBackend, level: int) -> None:
    """FIPS 204: the pair of a seed, and signatures by their mu, since each has a context."""
    kinds = {44: MLDSA44PrivateKey, 65: MLDSA65PrivateKey, 87: MLDSA87PrivateKey}
    rows = list(records(f"asymmetric/MLDSA/kat_MLDSA_{level}_det_pure.rsp", "count"))
    assert len(rows) >= 10
    for row in rows[:10]:
        private = kinds[level].from_seed_bytes(unhex(row["xi"]))
        material = imported(software, f"ML_DSA_{level}", private)
        assert material.public_key is not None
        assert material.public_key.endswith(unhex(row["pk"]))
        message = unhex(row["msg"])
        signature = unhex(row["sm"])[: int(row["smlen"]) - int(row["mlen"])]
        mu = mu_of(material.public_key, message, unhex(row["ctx"]))

        def verified(handle: str, given: bytes, made: bytes) -> bool:
            return software.verify(
                handle, "ML_DSA_SHAKE_256", given, made, message_type=MessageType.EXTERNAL_MU
            )

        assert verified(material.handle, mu, signature)
        assert not verified(material.handle, mu[::-1], signature)
        assert not verified(material.handle, mu_of(material.public_key, message), signature)
