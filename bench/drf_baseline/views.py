"""One view: who asks, may they, do it, keep a row of it, answer."""

from __future__ import annotations

import base64
import os
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import CharField, Serializer
from rest_framework.views import APIView

from bench.drf_baseline.models import Grant, Key, Record


class Asked(Serializer):
    plaintext = CharField(required=False)
    ciphertext = CharField(required=False)
    message = CharField(required=False)


class Use(APIView):
    """POST keys/<alias>/<operation>."""

    def post(self, request: Request, alias: str, operation: str) -> Response:
        """Carry out one operation."""
        key = Key.objects.filter(alias=alias, active=True).first()
        if key is None:
            raise NotFound
        granted = Grant.objects.filter(
            application=request.user, key=key, operation=operation
        ).exists()
        asked = Asked(data=request.data)
        asked.is_valid(raise_exception=True)
        result = _perform(key, operation, asked.validated_data) if granted else {}
        Record.objects.create(
            application=request.user.name,
            operation=operation,
            key=alias,
            outcome="success" if granted else "denied",
            source=request.META.get("REMOTE_ADDR", ""),
        )
        if not granted:
            raise PermissionDenied
        return Response({"key_id": alias, "version": 1, **result})


def _perform(key: Key, operation: str, asked: dict[str, str]) -> dict[str, str]:
    if operation == "sign":
        return {"signature": _text(_signed(key, _bytes(asked["message"])))}
    aead = AESGCM(bytes(key.material))
    bound = key.alias.encode()
    if operation == "decrypt":
        sealed = _bytes(asked["ciphertext"])
        return {"plaintext": _text(aead.decrypt(sealed[:12], sealed[12:], bound))}
    made = os.urandom(32) if operation == "generate-data-key" else _bytes(asked["plaintext"])
    nonce = os.urandom(12)
    result = {"ciphertext": _text(nonce + aead.encrypt(nonce, made, bound))}
    return result | ({"plaintext": _text(made)} if operation == "generate-data-key" else {})


def _signed(key: Key, message: bytes) -> bytes:
    private = _private(bytes(key.material))
    if key.spec == "p256":
        return bytes(private.sign(message, ec.ECDSA(hashes.SHA256())))
    return bytes(private.sign(message))


@lru_cache(maxsize=100)
def _private(der: bytes) -> Any:
    """Return a private key; loading one takes longer than signing with it."""
    return serialization.load_der_private_key(der, password=None)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
