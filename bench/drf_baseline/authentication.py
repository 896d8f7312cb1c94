"""Who asks: by a token, looked up for each request."""

from __future__ import annotations

import hashlib

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from bench.drf_baseline.models import Application, Token


class Bearer(BaseAuthentication):
    """A token by its digest, from the database."""

    def authenticate(self, request: Request) -> tuple[Application, Token] | None:
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = hashlib.sha256(token.encode()).hexdigest()
        found = Token.objects.select_related("application").filter(digest=digest).first()
        if found is None or found.expires_at < timezone.now():
            raise AuthenticationFailed
        return found.application, found

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
