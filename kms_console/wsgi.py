"""The WSGI application: everything but the use of keys. kms_console.asgi mounts it."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kms_console.settings")

application = get_wsgi_application()
