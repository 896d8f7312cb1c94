"""How answers leave: as JSON, or as a plain page around the same JSON for who looks with a browser."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from django.template import Context, Engine
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from kms_console.api.rest.asgi import wants_page

# An engine of its own: these pages need nothing of the console's.
engine = Engine(
    dirs=[str(Path(__file__).parent / "templates")],
    libraries={"static": "django.templatetags.static"},
)


def page(name: str, **values: Any) -> str:
    """Return a page of this API, filled in."""
    return engine.get_template(f"rest/{name}").render(Context(values))


class Json(BaseRenderer):
    """Structs, and bytes that are JSON already."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        return encoded(data)


class BrowsablePage(BaseRenderer):
    """The answer, indented, with its status and a way to the documentation. No script, no style inline."""

    media_type = "text/html"
    format = "html"
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        context = renderer_context or {}
        request, response = context.get("request"), context.get("response")
        body = encoded(data)
        shown = json.dumps(json.loads(body), indent=2, ensure_ascii=False) if body else ""
        if response is not None:
            response["Content-Type"] = "text/html; charset=utf-8"
        return page(
            "answer.html",
            method=request.method if request is not None else "",
            address=request.get_full_path() if request is not None else "",
            status=response.status_code if response is not None else "",
            reason=response.reason_phrase if response is not None else "",
            body=shown,
        ).encode()


class ByAccept(BaseContentNegotiation):
    """A page for who asks for text/html, JSON for everybody else: an odd Accept header is no reason to refuse."""

    def select_parser(self, request: Request, parsers: Iterable[Any]) -> Any:
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[Any], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        kind: type[BaseRenderer] = (
            BrowsablePage if wants_page(request.META.get("HTTP_ACCEPT", "")) else Json
        )
        return kind(), kind.media_type


def encoded(data: Any) -> bytes:
    """Return JSON: bytes are JSON already, nothing is nothing."""
    if data is None:
        return b""
    return data if isinstance(data, bytes) else msgspec.json.encode(data)
