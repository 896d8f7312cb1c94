"""The view as WSGI in a pool of threads behind uvicorn: what ran fastest of Django's ways here."""

from __future__ import annotations

from typing import Any, cast

from a2wsgi import WSGIMiddleware
from django.core.wsgi import get_wsgi_application

THREADS = 8

application = WSGIMiddleware(cast(Any, get_wsgi_application()), workers=THREADS)
