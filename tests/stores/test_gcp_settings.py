"""Settings of a Google key ring, its names and labels, and checksums: nothing here asks a server."""

from __future__ import annotations

import os
import uuid

import pytest

from keys.algorithms import SPECS
from keys.backends import registry
from keys.backends.base import NoMaterial
from keys.backends.gcp import configuration, names
from keys.backends.gcp.backend import GcpBackend
from keys.backends.gcp.checksums import crc32c
from keys.backends.gcp.forms import FORMS
from keys.backends.gcp.names import Mark
from keys.errors import Invalid

RING = "projects/my-project/locations/europe-west3/keyRings/console"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "key_ring"),
        ({"key_ring": "console"}, "key_ring"),
        ({"key_ring": RING + "/cryptoKeys/x"}, "key_ring"),
        ({"key_ring": RING.replace("keyRings", "key\nRings")}, "key_ring"),
        ({"key_ring": 7.5}, "key_ring"),
        ({"key_ring": RING, "protection_level": "external"}, "protection_level"),
        ({"key_ring": RING, "endpoint": "http://kms.example.org:80"}, "endpoint"),
        ({"key_ring": RING, "endpoint": "http://127.0.0.1"}, "endpoint"),
        ({"key_ring": RING, "endpoint": "ftp://127.0.0.1:1"}, "endpoint"),
        ({"key_ring": RING, "endpoint": "kms.example.org:port"}, "endpoint"),
        ({"key_ring": RING, "endpoint": "kms.example.org/path"}, "endpoint"),
        ({"key_ring": RING, "endpoint": "https://user:pass@kms.example.org"}, "endpoint"),
        ({"key_ring": RING, "endpoint": "https://"}, "endpoint"),
        ({"key_ring": RING, "destroy_days": "0"}, "destroy_days"),
        ({"key_ring": RING, "destroy_days": "121"}, "destroy_days"),
        ({"key_ring": RING, "destroy_days": "a week"}, "destroy_days"),
        ({"key_ring": RING, "destroy_days": "10" * 20}, "destroy_days"),
        ({"key_ring": RING, "destroy_days": True}, "destroy_days"),
        ({"key_ring": RING, "unknown": "x"}, "unknown"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        registry.check_settings("gcp", settings, "")


def test_only_this_machine_is_spoken_to_without_tls() -> None:
    for endpoint, target, plain in (
        ("", "cloudkms.googleapis.com:443", False),
        ("cloudkms.europe-west3.rep.googleapis.com", "cloudkms.europe-west3.rep.googleapis.com:443", False),
        ("kms.example.org:8443", "kms.example.org:8443", False),
        ("https://kms.example.org", "kms.example.org:443", False),
        ("https://127.0.0.1:9000", "127.0.0.1:9000", False),
        ("127.0.0.1:9000", "127.0.0.1:9000", True),
        ("http://localhost:9000", "localhost:9000", True),
        ("http://[::1]:9000", "[::1]:9000", True),
        ("127.0.0.1.example.org:9000", "127.0.0.1.example.org:9000", False),
    ):  # fmt: skip
        read = configuration.read({"key_ring": RING, "endpoint": endpoint})
        assert (read.target, read.plain) == (target, plain)
    assert configuration.read({"key_ring": RING}).location == RING.partition("/keyRings/")[0]


def test_what_a_key_ring_offers_is_said_without_asking_it() -> None:
    store = GcpBackend(uuid.uuid4(), {"key_ring": RING, "destroy_days": "7"}, None)
    offered = store.capabilities()
    assert offered.algorithms["AES_256"] == ("AES_256_GCM",)
    assert offered.algorithms["RSA_4096"][0] == "RSASSA_PSS_SHA_256"
    assert "ECC_SECG_P256K1" not in offered.algorithms
    assert offered.window == (7, 120)
    assert not offered.destroys_at_once
    assert "ML_DSA_65" not in offered.imports
    for spec, algorithms in offered.algorithms.items():
        assert set(algorithms) <= set(SPECS[spec].algorithms)


def test_every_form_names_an_algorithm_that_googles_library_knows() -> None:
    from google.cloud import kms_v1

    algorithms = kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm
    for form in FORMS.values():
        assert form.google in algorithms.__members__
        assert form.purpose in kms_v1.CryptoKey.CryptoKeyPurpose.__members__


# --- names and labels


def test_a_handle_is_of_this_ring_or_of_nothing() -> None:
    handle = f"{RING}/cryptoKeys/kms-console-x/cryptoKeyVersions/12"
    assert names.split(RING, handle) == (f"{RING}/cryptoKeys/kms-console-x", 12)
    for wrong in (
        handle + "x",
        handle + "\n",
        handle.replace("/12", "/0"),
        handle.replace("/12", "/-1"),
        handle.replace("/12", "/" + "9" * 11),
        handle.replace("console/", "console-2/"),
        f"{RING}/cryptoKeys/a/b/cryptoKeyVersions/1",
        "",
    ):
        with pytest.raises(NoMaterial):
            names.split(RING, wrong)


def test_a_mark_replaces_the_one_before_it_and_the_oldest_are_let_go() -> None:
    labels: dict[str, str] = {"team": "billing", "kms-console-key": "x"}
    wanted = [uuid.uuid4() for _ in range(names.MARKS_KEPT + 5)]
    for number, label in enumerate(wanted, 1):
        labels = names.marked(labels, Mark(number, label, "0011223344556677"))
        assert names.mark_for(labels, label) == Mark(number, label, "0011223344556677")
    assert len(names.marks(labels)) == names.MARKS_KEPT
    assert names.mark_for(labels, wanted[0]) is None
    assert names.tags(labels) == {"team": "billing"}
    # A number that went to somebody else is put right.
    again = names.marked(labels, Mark(99, wanted[-1]))
    assert names.mark_for(again, wanted[-1]) == Mark(99, wanted[-1])
    assert len(names.marks(again)) == names.MARKS_KEPT


def test_labels_that_are_no_marks_are_left_alone() -> None:
    labels = {
        "kms-console-version-": "a" * 32,
        "kms-console-version-0": "a" * 32,
        "kms-console-version-1": "not hexadecimal",
        "kms-console-version-2x": "a" * 32,
    }
    assert names.marks(labels) == []


# --- checksums


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksums_are_those_that_were_published(data: bytes, checksum: int) -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(data) == checksum


def test_the_server_of_ours_counts_the_same_in_its_own_way() -> None:
    from tests.peers.google_server.answers import crc32c as theirs

    for size in (1, 2, 3, 1000, 1001):
        data = os.urandom(size)
        assert crc32c(data) == theirs(data)
