"""Errors as problem documents: one table, and nothing falls through it."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404
from rest_framework import exceptions

from keys import errors
from keys.backends.base import NoMaterial
from kms_console.api.rest import problems
from tests.api.clients import Api
from tests.house import House

STATUS = {
    "unauthenticated": 401,
    "denied": 403,
    "not_found": 404,
    "invalid": 400,
    "too_large": 413,
    "range_not_satisfiable": 416,
    "conflict": 409,
    "illegal_transition": 409,
    "state_forbids": 409,
    "already_exists": 409,
    "cannot_decrypt": 400,
    "unsupported": 422,
    "unavailable": 503,
    "backend_unavailable": 503,
    "backend_throttled": 503,
    "backend_refused": 503,
    "still_waiting": 503,
    "log_unavailable": 503,
    "busy": 503,
    "backend_error": 502,
    "no_material": 502,
    "malformed_request": 400,
    "unsupported_media_type": 415,
    "method_not_allowed": 405,
    "timeout": 408,
    "csrf_failed": 403,
    "throttled": 429,
    "rate_limited": 429,
    "quota_used_up": 429,
    "internal_error": 500,
}


def test_every_error_there_is_has_its_code_and_status() -> None:
    assert {code: status for code, (_, status) in problems.meanings().items()} == STATUS


def test_every_error_of_the_domain_stands_in_the_table_itself() -> None:
    domain = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.KeyServiceError)
    } - {errors.KeyServiceError}
    assert domain <= problems.TABLE.keys()


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (Http404("x"), "not_found"),
        (exceptions.ParseError("x"), "malformed_request"),
        (exceptions.MethodNotAllowed("GET"), "method_not_allowed"),
        (exceptions.UnsupportedMediaType("x"), "unsupported_media_type"),
        (exceptions.NotAcceptable(), "malformed_request"),
        (exceptions.NotAuthenticated(), "unauthenticated"),
        (exceptions.PermissionDenied(), "denied"),
        (exceptions.Throttled(5), "throttled"),
        (RequestDataTooBig("x"), "too_large"),
        (SuspiciousOperation("x"), "malformed_request"),
        (OperationalError("secret words"), "unavailable"),
        (NoMaterial("x"), "no_material"),
        (ZeroDivisionError("secret words"), "internal_error"),
        (RecursionError("secret words"), "internal_error"),
    ],
)
def test_whatever_is_raised_becomes_one_of_ours(raised: Exception, code: str) -> None:
    known = problems.known(raised)
    document = json.loads(problems.document(known, "r-1"))
    assert document["code"] == code
    assert document["status"] == STATUS[code] == problems.answer_of(known).status
    assert document["request_id"] == "r-1"
    assert "secret words" not in json.dumps(document)


def test_further_members_never_replace_those_of_the_standard() -> None:
    error = errors.Invalid("wrong", field="days", status=200, type="x")
    document = json.loads(problems.document(error, "r"))
    assert (document["field"], document["status"]) == ("days", 400)
    assert document["type"] == "/api/v1/problems/invalid"


def test_what_can_be_tried_again_says_when() -> None:
    for kind in (errors.Unavailable, errors.BackendUnavailable, errors.LogUnavailable, errors.Busy):
        assert int(problems.answer_of(kind()).headers["Retry-After"]) > 0


def test_a_problems_type_can_be_looked_up_by_anybody(house: House) -> None:
    for code, status in STATUS.items():
        answer = Api().get(f"problems/{code}")
        assert answer.status == 200
        assert (answer.json["code"], answer.json["status"]) == (code, status)
        assert answer.json["meaning"]
    Api().get("problems/nothing").problem(404, "not_found")
