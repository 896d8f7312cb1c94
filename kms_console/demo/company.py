"""Meridian Health, an invented company: its people, its keys, its applications."""

from __future__ import annotations

from dataclasses import dataclass, field

COMPANY = "Meridian Health"


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    username: str
    role: str


PEOPLE = (
    Person("Ada Lindqvist", "ada", "administrator"),
    Person("Olga Brandt", "olga", "officer"),
    Person("Otto Weiss", "otto", "officer"),
    Person("Oona Virtanen", "oona", "officer"),
    Person("Udo Kern", "udo", "auditor"),
)


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """One key. `days_old`: imported, and its material was made that many days ago."""

    classification: str
    alias: str
    name: str
    spec: str
    owner: str
    description: str
    days_old: int = 0
    algorithm: str = ""
    publish_days: int | None = None
    labels: dict[str, str] = field(default_factory=dict)


# One purpose a key (NIST SP 800-57 part 1 rev. 5, section 5.2), and one classification.
KEYS = (
    KeyPlan(
        "public",
        "public-documents",
        "Document signing",
        "ECC_NIST_P256",
        "Communications",
        "Signs reports and notices before they are published.",
        labels={"system": "website"},
    ),
    KeyPlan(
        "public",
        "public-newsletter",
        "Newsletter signing",
        "RSA_3072",
        "Communications",
        "Signed the newsletter, which has ended.",
        labels={"system": "newsletter"},
    ),
    KeyPlan(
        "public",
        "public-releases",
        "Release signing",
        "ML_DSA_65",
        "IT operations",
        "Signs software for devices that will still verify it in twenty years.",
        publish_days=30,
        labels={"system": "devices"},
    ),
    KeyPlan(
        "internal",
        "internal-backups",
        "Backup encryption",
        "AES_256",
        "IT operations",
        "Data keys for a backup program that knows plain AES-GCM only.",
        algorithm="AES_256_GCM",
        labels={"system": "backups"},
    ),
    KeyPlan(
        "internal",
        "internal-files",
        "File encryption",
        "AES_256",
        "IT operations",
        "Data keys for files on the shared drives.",
        labels={"system": "file-share"},
    ),
    KeyPlan(
        "internal",
        "internal-api",
        "API authentication",
        "HMAC_256",
        "IT operations",
        "Authenticates messages between internal services.",
        labels={"system": "gateway"},
    ),
    KeyPlan(
        "internal",
        "internal-wiki",
        "Wiki encryption",
        "AES_256",
        "IT operations",
        "The wiki is read-only while it moves.",
        labels={"system": "wiki"},
    ),
    KeyPlan(
        "confidential",
        "confidential-finance",
        "Finance database",
        "AES_256",
        "Finance",
        "Invoices and accounts receivable.",
        labels={"system": "billing"},
    ),
    KeyPlan(
        "confidential",
        "confidential-hr",
        "HR database",
        "AES_256",
        "Human resources",
        "Contracts of employment and salaries.",
        labels={"system": "hr"},
    ),
    KeyPlan(
        "confidential",
        "confidential-contracts",
        "Contract signing",
        "ECC_NIST_P384",
        "Legal",
        "Signs contracts with suppliers and insurers.",
        labels={"system": "contracts"},
    ),
    KeyPlan(
        "confidential",
        "confidential-payroll",
        "Payroll archive",
        "AES_256",
        "Human resources",
        "Brought along from the former payroll provider.",
        days_old=380,
        labels={"system": "payroll"},
    ),
    KeyPlan(
        "patient-health",
        "patient-records",
        "Records database",
        "AES_256",
        "Clinical systems",
        "Fields of the patient records.",
        labels={"system": "patient-records"},
    ),
    KeyPlan(
        "patient-health",
        "patient-imaging",
        "Imaging archive",
        "AES_256",
        "Radiology",
        "Data keys for images and scans.",
        labels={"system": "imaging"},
    ),
    KeyPlan(
        "patient-health",
        "patient-prescriptions",
        "Prescription signing",
        "ECC_NIST_P384",
        "Pharmacy",
        "Signs electronic prescriptions.",
        labels={"system": "prescriptions"},
    ),
    KeyPlan(
        "patient-health",
        "patient-laboratory",
        "Laboratory archive",
        "AES_256",
        "Laboratory",
        "Brought along from the former laboratory system.",
        days_old=400,
        labels={"system": "laboratory"},
    ),
)


@dataclass(frozen=True, slots=True)
class ApplicationPlan:
    """One application, and what it may do with which key."""

    name: str
    description: str
    grants: dict[str, list[str]]


_CRYPT = ["decrypt", "encrypt", "generate_data_key"]
APPLICATIONS = (
    ApplicationPlan("patient-records", "The patient records system", {"patient-records": _CRYPT}),
    ApplicationPlan(
        "billing",
        "Invoices and payments",
        {"confidential-finance": _CRYPT, "internal-api": ["mac", "verify_mac"]},
    ),
    ApplicationPlan(
        "documents",
        "File share and publishing",
        {
            "internal-backups": _CRYPT,
            "internal-files": _CRYPT,
            "public-documents": ["public_key", "sign", "verify"],
        },
    ),
)
# The key and the application that the curl is shown with.
SHOWN = "patient-records"
