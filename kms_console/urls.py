"""Every address of the house, on one screen."""

from __future__ import annotations

from django.urls import include, path

from kms_console import health

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("api/v1/", include("kms_console.api.rest.urls")),
    path("", include("kms_console.web.urls")),
]

handler400 = "kms_console.web.failures.bad_request"
handler403 = "kms_console.web.failures.forbidden"
handler404 = "kms_console.web.failures.not_found"
handler500 = "kms_console.web.failures.server_error"
