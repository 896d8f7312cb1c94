"""Make the tables and what stands in them; print the application's token as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from datetime import timedelta

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


def main() -> None:
    """Set the baseline up in an empty database."""
    django.setup()
    from django.core.management import call_command
    from django.utils import timezone

    from bench.drf_baseline.models import Application, Grant, Key, Token

    call_command("migrate", run_syncdb=True, verbosity=0)
    application = Application.objects.create(name="bench")
    token = secrets.token_urlsafe(32)
    Token.objects.create(
        digest=hashlib.sha256(token.encode()).hexdigest(),
        application=application,
        expires_at=timezone.now() + timedelta(days=1),
    )
    for alias, material in (
        ("data", os.urandom(32)),
        ("p256", _der(ec.generate_private_key(ec.SECP256R1()))),
        ("ed25519", _der(ed25519.Ed25519PrivateKey.generate())),
    ):
        key = Key.objects.create(alias=alias, spec=alias, material=material)
        for operation in ("encrypt", "decrypt", "generate-data-key", "sign"):
            Grant.objects.create(application=application, key=key, operation=operation)
    print(json.dumps({"token": token}))


def _der(private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


if __name__ == "__main__":
    main()
