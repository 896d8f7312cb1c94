"""Settings. Everything that differs between machines comes from the environment; see docs/operator-guide.md."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from kms_console import databases, environment
from kms_console.secret_files import read_or_create

BASE_DIR = Path(__file__).resolve().parent.parent

# Where the embedded defaults keep their data. Production names its servers instead.
DATA_DIR = Path(environment.text("KMS_DATA", str(BASE_DIR / "var"))).resolve()
SECRETS_DIR = DATA_DIR / "secrets"

DEBUG = environment.flag("DEBUG", False)
SECRET_KEY = environment.text("SECRET_KEY", "") or read_or_create(SECRETS_DIR / "django-secret-key")
ALLOWED_HOSTS = environment.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
# True where a TLS terminator stands in front: secure cookies, HSTS, redirects.
TLS = environment.flag("TLS", False)
TRUSTED_PROXIES = environment.words("TRUSTED_PROXIES", "")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "auditlog",
    "csp",
    "lucide",
    "audit",
    "keys",
    "keys.backends.software",
    "kms_console",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "kms_console.middleware.RequestIdMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "kms_console.middleware.SessionLimitsMiddleware",
    "kms_console.middleware.FetchMetadataMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "kms_console.urls"
WSGI_APPLICATION = "kms_console.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "kms_console.web.context.console",
            ],
            "builtins": ["lucide.templatetags.lucide", "kms_console.web.templatetags.console"],
        },
    },
]


DATABASES = {
    # Metadata, the audit log and its head: one database, so that a change and its entry commit together.
    "default": databases.configured("DATABASE_URL", DATA_DIR / "metadata" / "metadata.sqlite3"),
    # Wrapped key material of the software backend, apart from the metadata.
    "material": databases.configured(
        "MATERIAL_DATABASE_URL", DATA_DIR / "material" / "material.sqlite3"
    ),
}
DATABASE_ROUTERS = ["kms_console.databases.MaterialRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The root key that wraps software key material: a file of mode 0600, or the variable KMS_ROOT_KEY.
ROOT_KEY_FILE = Path(environment.text("KMS_ROOT_KEY_PATH", str(SECRETS_DIR / "root-key")))

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "web:sign-in"
LOGIN_REDIRECT_URL = "web:overview"
LOGOUT_REDIRECT_URL = "web:sign-in"

SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_NAME = "__Host-kms-session" if TLS else "kms-session"
SESSION_COOKIE_SECURE = TLS
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
SESSION_IDLE_SECONDS = environment.number("SESSION_IDLE_SECONDS", 15 * 60, 60)
SESSION_ABSOLUTE_SECONDS = environment.number("SESSION_ABSOLUTE_SECONDS", 8 * 3600, 60)
CSRF_COOKIE_NAME = "__Host-kms-csrf" if TLS else "kms-csrf"
CSRF_COOKIE_SECURE = TLS
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "kms_console.web.failures.csrf_failure"
CSRF_TRUSTED_ORIGINS = environment.words("CSRF_TRUSTED_ORIGINS", "")
SECURE_SSL_REDIRECT = TLS
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz)$"]  # probes come from this machine, without TLS
SECURE_HSTS_SECONDS = 31_536_000 if TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = TLS
# Preloading binds a whole domain and can hardly be undone: its owner's decision, not ours.
SILENCED_SYSTEM_CHECKS = ["security.W021"]
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
    }
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = Path(environment.text("STATIC_ROOT", str(DATA_DIR / "static")))
with contextlib.suppress(OSError):  # where it isn't there WhiteNoise warns, and does well without
    STATIC_ROOT.mkdir(parents=True, exist_ok=True)
STATICFILES_DIRS = [BASE_DIR / "kms_console" / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

# Limits on what a request may carry, in bytes.
BODY_LIMIT = environment.number("KMS_BODY_LIMIT", 1024 * 1024, 1024)
BATCH_BODY_LIMIT = environment.number("KMS_BATCH_BODY_LIMIT", 16 * 1024 * 1024, 1024)
# Items of a batch, and how many messages a process takes of a version's budget at a time.
BATCH_LIMIT = environment.number("KMS_BATCH_LIMIT", 1000, 1)
COUNTER_BLOCK = environment.number("KMS_COUNTER_BLOCK", 65_536, 1)
# SP 800-38D, 8.3, allows 2^32 messages with random 96-bit nonces; a lower limit can be set here.
MESSAGE_LIMIT = min(environment.number("KMS_MESSAGE_LIMIT", 2**32, 1), 2**32)
PLAINTEXT_LIMIT = environment.number("KMS_PLAINTEXT_LIMIT", 64 * 1024, 1)
# Uses of keys that an application may make in a second where nobody set its own limit; 0: no limit.
RATE_LIMIT = environment.number("KMS_RATE_LIMIT", 0)
# On how many hosts web processes serve one database: each process has its share of a rate.
WEB_HOSTS = environment.number("KMS_WEB_HOSTS", 1, 1)
# How many web processes serve on each host.
WEB_PROCESSES = environment.number("KMS_WEB_PROCESSES", 1, 1)
# How many uses of keys, and how many pages, a web process takes on at once; more are turned away.
IN_FLIGHT = environment.number("KMS_IN_FLIGHT", 512, 1)
PAGES_IN_FLIGHT = environment.number("KMS_PAGES_IN_FLIGHT", 64, 1)
DATA_UPLOAD_MAX_MEMORY_SIZE = BODY_LIMIT

# Jobs: Celery carries ids; the schedule and the work live in the database.
REDIS_URL = environment.text("REDIS_URL", environment.broker_url(DATA_DIR))
SWEEP_SECONDS = environment.number("KMS_SWEEP_SECONDS", 30, 1)
JOB_LEASE_SECONDS = environment.number("KMS_JOB_LEASE_SECONDS", 120, 1)
# How often a key is compared with its store, where the store keeps states of its own.
DRIFT_SECONDS = environment.number("KMS_DRIFT_SECONDS", 3600, 1)
BACKEND_TIMEOUT_SECONDS = environment.number("KMS_BACKEND_TIMEOUT_SECONDS", 30, 1)
# A PKCS#11 module is native code that runs in this process: only from folders that root owns.
# What no key store's credential may refer to: whoever adds a store chooses where it is sent.
PRIVATE_VARIABLES = frozenset(
    {
        "DATABASE_URL",
        "KMS_AUDIT_WEBHOOK_SECRET",
        "KMS_ROOT_KEY",
        "MATERIAL_DATABASE_URL",
        "REDIS_URL",
        "SECRET_KEY",
    }
)
PRIVATE_PATHS = [
    DATA_DIR,
    ROOT_KEY_FILE,
    *(
        Path(os.environ[f"{name}_FILE"])
        for name in PRIVATE_VARIABLES
        if f"{name}_FILE" in os.environ
    ),
    *map(Path, ("/proc", "/sys")),
]
PKCS11_MODULE_FOLDERS = environment.words(
    "PKCS11_MODULE_FOLDERS", "/usr/lib,/usr/lib64,/usr/local/lib,/opt"
)
APPROVAL_DAYS = environment.number("KMS_APPROVAL_DAYS", 7, 1)

# A hard bound on what waits for the log: beyond it requests are refused rather than queued.
AUDIT_QUEUE_LIMIT = environment.number("KMS_AUDIT_QUEUE_LIMIT", 10_000, 1)

# The signer remembers here what it signed: outside the database, on its own machine where there is one.
SIGNER_FOLDER = Path(environment.text("KMS_SIGNER_FOLDER", str(DATA_DIR / "signer")))
# What the log is called in checkpoints, from its first signing on; empty: a name is made up.
AUDIT_ORIGIN = environment.text("KMS_AUDIT_ORIGIN", "")
SIGNER_ALGORITHMS = environment.words("KMS_SIGNER_ALGORITHMS", "ed25519,ecdsa-p384")
# A change of the log is signed within so many seconds; a log that rests, so often.
CHECKPOINT_SECONDS = environment.number("KMS_CHECKPOINT_SECONDS", 60, 1)
CHECKPOINT_IDLE_SECONDS = environment.number("KMS_CHECKPOINT_IDLE_SECONDS", 3600, 1)
# Addresses of places (audit.places) and of streams (audit.streams), one or several.
AUDIT_PUBLISH = environment.words("KMS_AUDIT_PUBLISH", "")
AUDIT_STREAMS = environment.words("KMS_AUDIT_STREAMS", "")
AUDIT_ARCHIVE = environment.text("KMS_AUDIT_ARCHIVE", "")
# Where bundles went before: they are read there still.
AUDIT_ARCHIVE_FORMER = environment.words("KMS_AUDIT_ARCHIVE_FORMER", "")
# Entries older than this are archived and dropped; 0: never.
AUDIT_KEEP_DAYS = environment.number("KMS_AUDIT_KEEP_DAYS", 0)
# How long the archive's storage refuses to delete a bundle; 0: it is not asked to.
AUDIT_RETAIN_DAYS = environment.number("KMS_AUDIT_RETAIN_DAYS", 0)
# What webhooks are signed with (HMAC-SHA256, as in Standard Webhooks).
AUDIT_WEBHOOK_SECRET = environment.text("KMS_AUDIT_WEBHOOK_SECRET", "")
# A file with the log's and the witnesses' keys, and how many of them must agree.
WITNESS_POLICY = environment.text("KMS_WITNESS_POLICY", "")
# What else remembers how long the log was: files and addresses of witnesses (audit.guard).
AUDIT_MEMORIES = environment.words("KMS_AUDIT_MEMORIES", "")

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "kms_console.api.rest.authentication.BearerAuthentication",
        "kms_console.api.rest.authentication.ConsoleSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "kms_console.api.rest.pages.BrowsablePage",
    ],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "kms_console.api.rest.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "KMS Console API",
    "DESCRIPTION": "One API over every key store: use keys, manage their whole life, read the audit trail.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:7} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": environment.text("LOG_LEVEL", "INFO")},
    "loggers": {
        "django.request": {"level": "ERROR"},
        # The vendors' libraries tell of every request, with its address and headers.
        **{name: {"level": "WARNING"} for name in ("azure", "botocore", "google", "urllib3")},
    },
}
