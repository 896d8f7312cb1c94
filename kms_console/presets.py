"""What a new house begins with: its first key store, and the classifications of a healthcare company.

The set-up page, `manage.py setup` and the worked example all start from these. Each row holds the
arguments of `keys.administration.create_key_store` and `create_classification`.
"""

from __future__ import annotations

from typing import Any

from keys.algorithms import SPECS

FIRST_KEY_STORE: dict[str, Any] = {
    "name": "software",
    "kind": "software",
    "title": "Software key store",
}

# 128 bits of strength and more (SP 800-57 part 1 rev. 5, table 2): all but RSA-2048.
_STRONG = sorted(name for name, spec in SPECS.items() if spec.strength >= 128)
# What lasts for as long as a health record is kept, against quantum computers too where it is public.
_LASTING = [
    "AES_256",
    "AES_SIV_512",
    "ECC_NIST_P384",
    "HMAC_256",
    "HMAC_384",
    "HMAC_512",
    "ML_DSA_65",
    "ML_DSA_87",
    "ML_KEM_1024",
    "ML_KEM_768",
    "X_WING",
]

CLASSIFICATIONS: list[dict[str, Any]] = [
    {
        "name": "public",
        "title": "Public",
        "description": "Published data. Its keys protect integrity: signatures on what anyone may read.",
        "allowed_specs": sorted(SPECS),
        "key_stores": ["software"],
        "rotation_days": 365,
        "originator_days": 730,
        "recipient_days": 1825,
        "destruction_days": 7,
    },
    {
        "name": "internal",
        "title": "Internal",
        "description": "For employees and partners: schedules, inventories, everyday documents.",
        "allowed_specs": _STRONG,
        "key_stores": ["software"],
        "rotation_days": 365,
        "originator_days": 730,
        "recipient_days": 1825,
        "destruction_days": 14,
    },
    {
        "name": "confidential",
        "title": "Confidential",
        "description": "Contracts, salaries, invoices: disclosure would harm the company or a person.",
        "allowed_specs": _STRONG,
        "key_stores": ["software"],
        "rotation_days": 365,
        "originator_days": 730,
        "recipient_days": 1825,
        "destruction_days": 30,
    },
    {
        "name": "patient-health",
        "title": "Patient health",
        "description": "Health records and whatever identifies a patient. Two of three officers must agree.",
        "allowed_specs": _LASTING,
        "key_stores": ["software"],
        "rotation_days": 90,
        # Room for a rotation that waits for votes: an overdue key still works.
        "originator_days": 540,
        "recipient_days": 1635,
        "quorum_m": 2,
        "quorum_n": 3,
        "destruction_days": 30,
    },
]
