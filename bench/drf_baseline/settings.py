"""Settings of the baseline: Django and DRF without what a view does not need."""

from __future__ import annotations

import os

import dj_database_url

SECRET_KEY = "for-the-bench-only-" + "0" * 32
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "bench.drf_baseline.urls"
INSTALLED_APPS = ["rest_framework", "bench.drf_baseline"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
# Autocommit, and one connection a thread that stays open, as a service has it.
DATABASES = {
    "default": dj_database_url.parse(
        os.environ.get("BASELINE_DATABASE_URL", "sqlite:///:memory:"), conn_max_age=None
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["bench.drf_baseline.authentication.Bearer"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "UNAUTHENTICATED_USER": None,
}
LOGGING_CONFIG = None
