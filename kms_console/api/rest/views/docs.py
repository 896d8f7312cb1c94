"""The documentation, what each problem means, and the answer to addresses that there are not."""

from __future__ import annotations

import inspect
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views import View
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from keys.errors import NotFound
from kms_console.api.rest import problems
from kms_console.api.rest.pages import ByAccept, page
from kms_console.api.rest.schema import operation
from kms_console.api.rest.shapes import Shape
from kms_console.api.rest.views.base import Door


class _Always(ByAccept):
    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        return OpenApiJsonRenderer(), OpenApiJsonRenderer.media_type


class Document(SpectacularAPIView):
    """The OpenAPI document."""

    renderer_classes = [OpenApiJsonRenderer]
    content_negotiation_class = _Always
    permission_classes: list[Any] = []


class Docs(View):
    """Swagger UI over the document, under the console's own strict content security policy."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(
            page(
                "docs.html",
                document=reverse("rest:document"),
                csrf_cookie=settings.CSRF_COOKIE_NAME,
            )
        )


class Meaning(Shape):
    """What a problem's code means."""

    code: str
    status: int
    title: str
    meaning: str


class ProblemType(Door):
    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    @operation(
        "find_problem_type", "Read what a problem means", tag="problems", answers={200: Meaning}
    )
    def get(self, request: Request, code: str) -> Response:
        found = problems.meanings().get(code)
        if found is None:
            raise NotFound("There is no problem of that code.")
        kind, status = found
        told = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
        return Response(Meaning(code=code, status=status, title=kind.title, meaning=told))


class NotHere(Door):
    """Whatever address below /api/v1/ there is not, for every method."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []
    schema = None  # type: ignore[assignment]  # REST framework's own way to leave it out

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise NotFound("There is no such address here.")
