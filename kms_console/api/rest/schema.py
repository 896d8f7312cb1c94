"""The OpenAPI document: msgspec structs as components, and `operation`, with which each view says what it does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema

from kms_console.api.rest import shapes
from kms_console.api.rest.problems import MEDIA_TYPE, Problem

F = TypeVar("F", bound=Callable[..., Any])
JSON = "application/json"
COMPONENTS = "#/components/schemas/{name}"

# Every struct that the document speaks of, and every closed vocabulary that they name.
_structs: dict[str, Any] = {}
_vocabularies: dict[str, Any] = {}

PATHS = {
    "key": "The key's id or alias.",
    "number": "The version's number.",
    "classification": "The classification's id or name.",
    "application": "The application's id or name.",
    "person": "The person's id or name.",
    "credential": "The credential's id.",
    "grant": "The grant's id.",
    "key_store": "The key store's id or name.",
    "approval": "The request's id.",
    "ceremony": "The ceremony's id.",
    "job": "The job's id.",
    "listing": "The listing's id.",
    "drift": "The difference's id.",
    "export": "The export's id.",
    "archive": "The index of the bundle's first entry.",
    "hold": "The legal hold's id.",
    "filter": "The saved filter's id.",
    "index": "The entry's index in the log.",
    "code": "The problem's code.",
}

_REFUSALS = {
    400: "The request is not valid.",
    401: "No valid credential came with the request.",
    403: "The caller may not do this.",
    404: "There is no such thing, or none that this caller may know of.",
    503: "A part of the service can't be reached now; try again after Retry-After.",
}
_REFUSED_USES = {
    429: "The application is over its limit; try again after Retry-After.",
}
_REFUSED_CHANGES = {
    409: "The request does not fit the present state.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The key or its key store can't do this.",
}
_PROBLEM = {
    "type": "/api/v1/problems/not_found",
    "title": "There is no such thing here",
    "status": 404,
    "detail": "There is no such key.",
    "code": "not_found",
    "request_id": "7f2c1e1c-52f4-4cf4-9f6e-0c4d3f1f8a35",
}


def page_of(shape: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return the struct of one page of a list: the rows, and the mark of the next page."""
    rows: Any = list[shape]  # type: ignore[valid-type]
    return msgspec.defstruct(
        f"{shape.__name__}Page", [("items", rows), ("next", str | None)], kw_only=True
    )


def _ref(kind: Any) -> dict[str, Any]:
    """Return a reference to a struct's component, and remember to write that."""
    _structs[kind.__name__] = kind
    return {"$ref": COMPONENTS.format(name=kind.__name__)}


def mention(kind: type[msgspec.Struct]) -> None:
    """Let the document speak of a struct that no operation names by itself."""
    _ref(kind)


def operation(
    identity: str,
    summary: str,
    *,
    tag: str,
    answers: Mapping[int, Any],
    description: str = "",
    query: type[msgspec.Struct] | None = None,
    body: type[msgspec.Struct] | None = None,
    example: Mapping[str, Any] | None = None,
    answer_example: Mapping[str, Any] | None = None,
    waits: bool = False,
    media: str = JSON,
) -> Callable[[F], F]:
    """Describe one method of a view. `waits`: it may need officers' votes, and then answers 202.

    `answers` are structs, of the type `media`, or texts for what isn't JSON.
    """
    responses: dict[Any, Any] = {}
    for status, kind in answers.items():
        if isinstance(kind, str):
            responses[status] = OpenApiResponse(description=kind)
        else:
            told = _first_line(kind) or summary
            responses[status, media] = OpenApiResponse(_ref(kind), description=told)
    if waits:
        told = "Officers must agree first; Location names the request."
        responses[202, JSON] = OpenApiResponse(_ref(shapes.PendingApproval), description=told)
    refusals = _REFUSALS | (_REFUSED_CHANGES if body is not None else {})
    if tag == "use":
        refusals = refusals | _REFUSED_USES
    for status, told in refusals.items():
        responses[status, MEDIA_TYPE] = OpenApiResponse(_ref(Problem), description=told)
    return extend_schema(
        operation_id=identity,
        summary=summary,
        description=description,
        tags=[tag],
        parameters=_parameters(query) if query is not None else [],
        request={JSON: _ref(body)} if body is not None else None,
        responses=responses,
        examples=_examples(summary, min(answers), example, answer_example, media),
    )


def _examples(
    summary: str,
    status: int,
    example: Mapping[str, Any] | None,
    answer: Mapping[str, Any] | None,
    media: str,
) -> list[OpenApiExample]:
    shown = [
        OpenApiExample(
            "Not found",
            value=_PROBLEM,
            media_type=MEDIA_TYPE,
            status_codes=["404"],
            response_only=True,
        )
    ]
    if example is not None:
        shown.append(OpenApiExample(summary, value=example, request_only=True))
    if answer is not None:
        shown.append(
            OpenApiExample(
                f"{summary}: answer",
                value=answer,
                response_only=True,
                media_type=media,
                status_codes=[str(status)],
            )
        )
    return shown


def _parameters(query: type[msgspec.Struct]) -> list[OpenApiParameter]:
    properties = _component(query)["properties"]
    return [
        OpenApiParameter(
            name, schema, OpenApiParameter.QUERY, description=schema.pop("description", "")
        )
        for name, schema in properties.items()
    ]


def _first_line(kind: Any) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0] if kind.__doc__ else ""


def _component(kind: Any) -> dict[str, Any]:
    """Return a struct's own schema."""
    _, found = msgspec.json.schema_components([kind], ref_template=COMPONENTS)
    own: dict[str, Any] = openapi(found[kind.__name__])
    return own


@functools.cache
def components() -> dict[str, Any]:
    """Return the schema of every struct that an operation names, and of those that they name.

    Call it once all views are there.
    """
    _, found = msgspec.json.schema_components(list(_structs.values()), ref_template=COMPONENTS)
    return {name: openapi(schema) for name, schema in found.items()} | _vocabularies


def openapi(schema: Any) -> Any:
    """Return a JSON schema as OpenAPI 3.0 writes it: no null type, no list of examples, base64 as a format."""
    if isinstance(schema, list):
        return [openapi(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: openapi(value) for name, value in schema.items() if name != "examples"}
    if found.get("required") == []:
        del found["required"]
    if found.pop("contentEncoding", "") == "base64":
        found["format"] = "byte"
    if "enum" in found and "title" in found:  # a vocabulary of ours: one component, many references
        name = found["title"]
        _vocabularies[name] = {"type": "string", "enum": found["enum"]}
        return {"$ref": COMPONENTS.format(name=name)}
    if "enum" in found and "type" not in found:
        found["type"] = "string"
    choices = found.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        rest = [choice for choice in choices if choice != {"type": "null"}]
        del found["anyOf"]
        found["nullable"] = True
        if len(rest) == 1 and "$ref" not in rest[0]:
            found |= rest[0]
        elif len(rest) == 1:
            found["allOf"] = rest
        else:
            found["anyOf"] = rest
    if "$ref" in found and len(found) > 1:  # beside a reference nothing else counts
        found["allOf"] = [{"$ref": found.pop("$ref")}]
    return found


class DoorSchema(AutoSchema):  # type: ignore[misc,unused-ignore]
    """Writes our structs into the document, and what the parts of an address mean."""

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        registry = args[4] if len(args) > 4 else kwargs["registry"]
        for name, schema in components().items():
            registry.register_on_missing(
                ResolvedComponent(name, ResolvedComponent.SCHEMA, schema, name)  # type: ignore[no-untyped-call]
            )
        found = super().get_operation(*args, **kwargs)
        body = (found or {}).get("requestBody")
        if body is not None:
            named = body["content"][JSON]["schema"]["$ref"].rpartition("/")[2]
            body["required"] = bool(components()[named].get("required"))
        return found

    def _get_format_parameters(self) -> list[Any]:
        return []

    def _resolve_path_parameters(self, variables: list[str]) -> list[dict[str, Any]]:
        return [
            {
                "in": "path",
                "name": name,
                "required": True,
                "schema": {"type": "integer" if name in ("number", "index") else "string"},
                "description": PATHS[name],
            }
            for name in variables
        ]


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "kms_console.api.rest.authentication.BearerAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "An application's token, shown once when it was issued: kms_…",
        }


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "kms_console.api.rest.authentication.ConsoleSessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        from django.conf import settings

        return {
            "type": "apiKey",
            "in": "cookie",
            "name": settings.SESSION_COOKIE_NAME,
            "description": "A person who is signed in to the console; changes need X-CSRFToken too.",
        }
