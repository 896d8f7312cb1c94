"""The commands of docs/user-guide.md do what it says, with the openssl of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from keys.algorithms import SPECS
from keys.backends.materials import check_value
from keys.models import Approval, Classification, Key
from keys.secret import Secret
from tests.console.bringing import REASON, parameters
from tests.house import House
from tests.parts import missing

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "user-guide.md"


def commands(word: str) -> str:
    """Return the guide's shell commands that stand below the comment, or in the block, with this word."""
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"\n(?=# )", block)]
    (found,) = [part for part in parts if word in part]
    return found


def run(script: str, folder: Path) -> str:
    for tool in ("openssl", "xxd", "bash"):
        if shutil.which(tool) is None:
            missing(tool, tool)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("way", "algorithm"),
    [
        ("RSA-OAEP alone", "RSAES_OAEP_SHA_256"),
        ("RSA-OAEP of a key that is used once", "RSA_AES_KEY_WRAP_SHA_256"),
    ],
)
def test_material_wrapped_as_the_guide_says_is_imported_with_the_check_value_that_it_computes(
    house: House, olga: Client, tmp_path: Path, way: str, algorithm: str
) -> None:
    key = house.key("internal", alias="brought", origin="imported")
    (tmp_path / "material.bin").write_bytes(os.urandom(32))
    pem, token = parameters(olga, "brought")
    (tmp_path / "wrapping-key.pem").write_text(pem)
    run(commands(way), tmp_path)
    value = run(commands("# AES-256: the first 8 bytes"), tmp_path).strip()
    file = SimpleUploadedFile("wrapped.bin", (tmp_path / "wrapped.bin").read_bytes())
    form = {"algorithm": algorithm, "token": token, "file": file, "check_value": value, **REASON}
    answer = olga.post("/keys/brought/import/material", form)
    assert answer.status_code == 302, answer.content.decode()
    assert key.versions.get().check_value == value


def test_check_values_of_macs_and_pairs_are_those_of_the_console(tmp_path: Path) -> None:
    material = os.urandom(32)
    (tmp_path / "material.bin").write_bytes(material)
    value = run(commands("# HMAC-SHA-256 (others"), tmp_path)
    assert value.strip() == check_value(SPECS["HMAC_256"], Secret(material))
    private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "material.bin").write_bytes(private)
    value = run(commands("# A pair: SHA-256"), tmp_path)
    assert value.strip() == check_value(SPECS["ECC_NIST_P256"], Secret(private))


def test_what_is_exported_is_unwrapped_as_the_guide_says(
    house: House, olga: Client, tmp_path: Path
) -> None:
    Classification.objects.filter(name="patient-health").update(allows_export=True)
    house.key("patient-health", alias="orders", exportable=True)
    recipient = rsa.generate_private_key(65537, 3072)
    (tmp_path / "recipient.pem").write_bytes(
        recipient.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public = recipient.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    address = "/keys/orders/versions/1/export"
    form = {
        "public_key": public.decode(), "algorithm": "RSA_AES_KEY_WRAP_SHA_256", **REASON,
    }  # fmt: skip
    assert olga.post(address, form).status_code == 302
    request = Approval.objects.get()
    house.approve(str(request.id), execute=False)
    taken = olga.post(address, {"request": str(request.id)})
    (tmp_path / "orders-1.wrapped").write_bytes(taken.content)
    run(commands("recipient.pem"), tmp_path)
    material = Secret((tmp_path / "material.bin").read_bytes())
    version = Key.objects.get(alias="orders").versions.get()
    assert check_value(SPECS["AES_256"], material) == version.check_value


def test_the_page_with_the_parameters_shows_the_commands_of_the_guide(
    house: House, olga: Client
) -> None:
    house.key("internal", alias="brought", origin="imported")
    page = olga.post("/keys/brought/import/parameters", {"spec": "RSA_3072"}).content.decode()
    for way in ("RSA-OAEP alone", "RSA-OAEP of a key that is used once"):
        lines = [line for line in commands(way).splitlines() if line and not line.startswith("#")]
        assert "\n".join(lines) in page
