"""SLH-DSA (FIPS 205) against published vectors, through the key store.

Key pairs of NIST's ACVP server (SLH-DSA-keyGen-FIPS205): an import signs with the seeds and verifies
with the root, so it takes a pair only where both belong together. Signatures of Botan's slh_dsa.vec,
made with the reference in Python of an author of the standard: their SHA-256 is published, and
tests/backends/fips205.py makes them again. The slow sets' stand apart.
"""

from __future__ import annotations

import hashlib

import pytest

from keys.backends.software.backend import SoftwareBackend
from keys.errors import Invalid
from keys.primitives import der
from keys.primitives.post_quantum import SLH_DSA_OIDS
from tests.backends.fips205 import SETS, Signer
from tests.backends.published import imported, unhex

# SK.seed, SK.prf, PK.seed, PK.root of the first test of each group (of OpenSSL's copy: 256S, 256F).
PAIRS = {
    "128S": """
        AC379F047FAAB2004F3AE32350AC9A3D829FFF0AA59E956A87F3971C4D58E710
        0566D240CC519834322EAFBCC73C79F5A4B84F02E8BF0CBD54017B2D3C494B57
        """,
    "128F": """
        AED6F6F5C5408BBFFA1136BC9049A7014D4CE0711E176A0C8A023508A692C207
        74D98D5000AF53B98F36389A1292BED3F4A650C56C426FCFDB88E3355459440C
        """,
    "192S": """
        3BFAED208B7DC795BF3647F86E4B48BF9ADB8D6784C50155A20311739497C3FC
        B860EE47E09EDE036F7AE8A939155BC0A67856A81A6ADBCED7F1A2780CC48A06
        681BA5E8C7938506BD031BC8124F95F0BAE2BECB2A3FBBAEC453C04A6E918FFB
        """,
    "192F": """
        942dd588b0e0636060b1023baf1df36002b9d3c7256904f948596f0f2f175055
        85f022423433b3a3ef50977b98b01e8e3e1d7dcf880c2ea3c8872122a996d5d6
        233bdfbd57fa641fad3c81bbe6778b1f788195131b3fca91854ff3b075bf0009
        """,
    "256S": """
        ae6ca8664ec0b9179d4e33c4defe01fcd589f60ba4502fe7416f2acd96e139f1
        3fda2069147f44eabd5bbf29c74a20cb0f0cc2a12bab5834b773530af504900a
        134d5ed3c60b46344a84a45d4683b1ac55fb22886ba9478ea9ca93f27b9aa2c2
        7c5c9908f086e57956f85de84b438ef1f082cd176dff3c5b8be710bc8699a143
        """,
    "256F": """
        37d1806dd090353064a982276aebd20e7318f36b17ec5209d4006651760ca043
        896630d51c45a8f7c1da31192f41204deb71bbc4fb47700a91ec47bb4acf3a38
        dabbd00112520e60061da23f4c83a5c475a0ad3ab75f59e5c7b8ce2430deb480
        c07849dd9f8d993dce5685d0840134bd11592055f74cde3aa9e7d25b33c31067
        """,
}

MESSAGE = unhex("D81C4D8D734FCBFBEADE3D3F8A039FAA2A2C9957E835AD55B22E75BF57BB556AC8")
# The private key, and SHA-256 of the signature of MESSAGE that is made without randomness.
SIGNATURES = {
    "128S": (
        """
        F696484048EC21F96CF50A56D0759C448F3779752F0383D37449690694CF7A68
        5EF56915BB461280CD7A1428BF89ECFBACE44265B801314A0D20A6006C9FF1E6
        """,
        "34F54432D5AF7ACC187BB6221ED7EA6863A6EEDDDA016849C1CA8B7506251003",
    ),
    "128F": (
        """
        1EAAE6BB91B27CD748C402C4111140D5A942CF3C95FF7977F88D2EF515BB26D0
        67B4319D2F67BAE52055DCD010A25A16220B1DDABBED69F503B5F07CBBA7F134
        """,
        "A19E2A5AE585EC140DC8C6910847C1E67EA2A96E6707E96F3F5646C23393ED1E",
    ),
    "192S": (
        """
        A9F93C7B791356B66AFCCEB745A548C7F6B185E4F45EC1FF1A22ACDD96E7A6D8
        D290F4ECB0E97B42C65CE45583DA8AD8C9C02F34DAF335681F00668A6B4209CA
        AD8F0A98AFD3CB6A10AC13A54B552951257A36F005A60E3F1D4FC605C6C69CA8
        """,
        "36A7CE4B9FAAB952245E1218098B0A8C5FC93FC672146CA49DB0C84444C3664F",
    ),
    "192F": (
        """
        F7ECFC9143EE45E44F5E98FD9CA1455340EC5DB4FB098534365EBBFBCC57D34D
        DE0999AA0C3992D155B9D6BE993CB9D7F04CA9D2E28AFCA52EA1C8178445CAD8
        C8F4EFC9D99F4753B1170FF7DF5359A4277F8EF072A833EE58C420A436928774
        """,
        "1B8CB853E473AE803E5CB46B4A1002DA48BD35EA7CEB40A3E81F5887F5934941",
    ),
    "256S": (
        """
        AD10AD3409A90C4B24AB0DA526F289209ABCB1F05C86C7E4437A144C91E1C867
        4BB0634876C4471D23C2F3A041A9830DAD41945642DA3487CE5D2E9E2BE9A1D4
        B2EA4B9157C191935629E8914AB581799F366ECC13A153BA88961EBD2D25E7B8
        126760D273E037DC76CFF5EDDECABEAD489F8A725BE650544C1E3145042D0C2A
        """,
        "F2E3FB0542D8164853BC0E1BE95125F346B75508D92272E41E009B3AC55AFC0C",
    ),
    "256F": (
        """
        EDB1483BD9DB934A5C0970C76E96ADAC58C2786F5525CCE741206154222B1BAD
        A4B54A813A208AD3472C64BEF72AA37AD944484A7525B3BFAB58B72D5878ADCC
        36B35AEFAEEF610994159BA32295631C237F59D285E62248442D5CCCA196973D
        3DFE70C01BD69E90313BA13437891E8AEBBFB4D42FCCCDFDF98655B272757553
        """,
        "3883D4E0A47250B66D44E80CD19E4F55195A89C2C1E020CFC534347DF7D00302",
    ),
}
# Also of NIST's (SLH-DSA-sigGen-FIPS205, an early one of the internal interface, as OpenSSL keeps
# it): it shows that tests/backends/fips205.py is FIPS 205, whatever the product does.
INTERNAL = (
    "256F",
    """
    1a5a6a0c8aae359cdace456742c37123e8c5ad9cfeab751b1d92116c81d6f52c
    b010086337e5fb27e674c7f6ee144cec10eef88780f10f0cf3f743c8b7db15ce
    0390bf5ecc8ff5a007236c56bf9d9d46a3534e545836cf7adf200dd2862f911b
    74095e73e63641fab26bd717ab29bb1ed8735c536132a19eac5daed8a07cf3b5
    """,
    "DC09",
    "13b778cd29f45535cce456ad36ffad5054c314be5f59a59acfa518b16a6f57f0",
)
EVERY_SET = [
    pytest.param(name, marks=pytest.mark.exhaustive if name.endswith("S") else ()) for name in SETS
]

# Importing is one signature: half a second and more in the largest of the small sets.
QUICK_IMPORTS = [
    pytest.param(name, marks=pytest.mark.exhaustive if name in ("192S", "256S") else ())
    for name in SETS
]


def encoded(name: str, raw: bytes) -> bytes:
    return der.private_key_info(SLH_DSA_OIDS[name], raw)


@pytest.mark.parametrize("name", QUICK_IMPORTS)
def test_key_pairs_of_nist(software: SoftwareBackend, name: str) -> None:
    raw = unhex(PAIRS[name])
    spec = f"SLH_DSA_SHA2_{name}"
    material = imported(software, spec, encoded(name, raw))
    assert material.public_key is not None
    assert material.public_key.endswith(raw[len(raw) // 2 :])
    wrong = raw[:-1] + bytes([raw[-1] ^ 1])
    with pytest.raises(Invalid):
        imported(software, spec, encoded(name, wrong))


@pytest.mark.parametrize("name", EVERY_SET)
def test_signatures_of_botans(software: SoftwareBackend, name: str) -> None:
    private, digest = SIGNATURES[name]
    signer = Signer.of(name, unhex(private))
    assert signer.computed_root() == signer.root
    signature = signer.sign(MESSAGE)
    assert hashlib.sha256(signature).digest() == unhex(digest)
    spec = f"SLH_DSA_SHA2_{name}"
    handle = imported(software, spec, encoded(name, unhex(private))).handle
    assert software.verify(handle, spec, MESSAGE, signature)
    assert not software.verify(handle, spec, MESSAGE[:-1], signature)
    for position in (0, 20, len(signature) // 2, len(signature) - 1):
        changed = bytearray(signature)
        changed[position] ^= 1
        assert not software.verify(handle, spec, MESSAGE, bytes(changed))


def test_a_signature_of_nists_internal_interface_is_the_second_implementations() -> None:
    name, private, message, digest = INTERNAL
    signature = Signer.of(name, unhex(private)).sign_internal(unhex(message))
    assert hashlib.sha256(signature).digest() == unhex(digest)
