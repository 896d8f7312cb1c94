"""No algorithm without a published test vector: a new row in the table needs a line here, and the test."""

from __future__ import annotations

import ast
import functools
import json
import re
from pathlib import Path

import pytest

from keys.algorithms import ALGORITHMS
from tests.honesty import make_vectors

BACKENDS = Path(__file__).resolve().parent.parent / "backends"
SYMMETRIC, SIGNATURES = "test_vectors_symmetric.py", "test_vectors_signatures.py"
SHARED, SLH_DSA = "test_vectors_shared_secrets.py", "test_vectors_slh_dsa.py"

# The test that runs each against vectors that others published.
PUBLISHED: dict[str, tuple[str, str]] = {
    "AES_256_GCM": (SYMMETRIC, "test_gcm_of_nist"),
    "AES_128_GCM": (SYMMETRIC, "test_gcm_of_nist"),
    "XAES_256_GCM": (SYMMETRIC, "test_committing_xaes_of_aws_lc"),
    "XCHACHA20_POLY1305": (SYMMETRIC, "test_xchacha20_poly1305_of_its_draft"),
    "AES_256_GCM_SIV": (SYMMETRIC, "test_gcm_siv_of_rfc_8452"),
    "AES_SIV_CMAC_512": (SYMMETRIC, "test_siv_of_rfc_5297"),
    **{f"RSAES_OAEP_SHA_{digest}": (SIGNATURES, "test_rsa_oaep") for digest in (1, 256, 384, 512)},
    **{f"HMAC_SHA_{bits}": (SYMMETRIC, "test_hmac_of_rfc_4231") for bits in (224, 256, 384, 512)},
    **{
        f"RSASSA_PSS_SHA_{bits}": (SIGNATURES, "test_rsa_pss_of_wycheproof")
        for bits in (256, 384, 512)
    },
    **{
        f"RSASSA_PKCS1_V1_5_SHA_{bits}": (SIGNATURES, "test_rsa_pkcs1_v1_5_of_nist")
        for bits in (256, 384, 512)
    },
    **{f"ECDSA_SHA_{bits}": (SIGNATURES, "test_ecdsa") for bits in (256, 384, 512)},
    "ED25519_SHA_512": (SIGNATURES, "test_ed25519_of_its_authors"),
    "ED448_SHAKE_256": (SIGNATURES, "test_ed448_of_rfc_8032"),
    "ML_DSA_SHAKE_256": (SIGNATURES, "test_ml_dsa_known_answers"),
    **{
        name: (SLH_DSA, "test_signatures_of_botans")
        for name in ALGORITHMS
        if name.startswith("SLH_DSA_SHA2_")
    },
    "ECDH": (SHARED, "test_ecdh_of_nist"),
    "ML_KEM": (SHARED, "test_ml_kem_known_answers"),
    "X_WING": (SHARED, "test_x_wing_of_its_draft"),
    **{f"HKDF_SHA_{bits}": (SYMMETRIC, "test_hkdf_of_wycheproof") for bits in (256, 384, 512)},
    "AES_KWP": (SYMMETRIC, "test_key_wrap_with_padding_of_nist"),
    "HPKE_X_WING_HKDF_SHA_256_AES_256_GCM": (
        SHARED,
        "test_hpke_with_x_wing_by_its_published_parts",
    ),
}


@functools.cache
def tree(file: str) -> ast.Module:
    return ast.parse((BACKENDS / file).read_text(encoding="utf-8"))


def names(file: str) -> list[str]:
    """Return, as patterns, the texts in a file that could name an algorithm: f-strings with gaps."""
    found = []
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.escape(node.value))
        elif isinstance(node, ast.JoinedStr):
            parts = [
                re.escape(part.value)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
                else "[A-Z0-9_]+"
                for part in node.values
            ]
            found.append("".join(parts))
    return [pattern for pattern in found if re.match(r"[A-Z][A-Z_]", pattern)]


# Nobody publishes vectors for it: it is these two, one behind the other; docs/vectors has some.
COMPOSED = {"RSA_AES_KEY_WRAP_SHA_256": ("RSAES_OAEP_SHA_256", "AES_KWP")}


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - set(COMPOSED)))
def test_every_algorithm_runs_against_published_vectors(algorithm: str) -> None:
    file, function = PUBLISHED[algorithm]
    tests = {node.name for node in tree(file).body if isinstance(node, ast.FunctionDef)}
    assert function in tests, f"{file} has no {function}"
    assert any(re.fullmatch(pattern, algorithm) for pattern in names(file)), (
        f"{file} doesn't name {algorithm}"
    )


def test_what_is_composed_has_parts_that_are_published_and_vectors_of_ours() -> None:
    vectors = json.loads(make_vectors.FILE.read_text(encoding="utf-8"))["wrapped_keys"]
    for algorithm, parts in COMPOSED.items():
        assert set(parts) <= set(PUBLISHED)
        assert algorithm in {row["algorithm"] for row in vectors}
