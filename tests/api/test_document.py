"""The OpenAPI document and the page over it."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import msgspec
import pytest
from django.contrib.staticfiles import finders
from django.core.management import call_command

from keys.errors import Invalid
from kms_console.api.rest.codecs.use import RANDOM, RANDOM_BATCH, TABLE
from tests.api.clients import routes


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document, as the command writes it, without a warning."""
    out = io.StringIO()
    call_command("spectacular", validate=True, fail_on_warn=True, format="openapi-json", stdout=out)
    return json.loads(out.getvalue())  # type: ignore[no-any-return]


def test_every_route_is_documented_and_nothing_else(document: dict[str, Any]) -> None:
    told = {
        (method.upper(), path.removeprefix("/api/v1/"))
        for path, item in document["paths"].items()
        for method in item
    } - {("GET", "problems/{code}")}
    there = {(r.method, r.pattern.replace("<", "{").replace(">", "}")) for r in routes()}
    assert told == there


def test_every_operation_has_a_name_of_its_own_a_summary_and_its_refusals(
    document: dict[str, Any],
) -> None:
    operations = [op for item in document["paths"].values() for op in item.values()]
    names = [op["operationId"] for op in operations]
    assert len(names) == len(set(names))
    for op in operations:
        assert op["summary"]
        assert {"400", "401", "403", "404", "503"} <= op["responses"].keys()
        for status in ("400", "404"):
            assert list(op["responses"][status]["content"]) == ["application/problem+json"]


@pytest.mark.parametrize("path", [*TABLE, "random", "random/batch"])
def test_key_use_has_examples_that_its_own_reader_takes(
    document: dict[str, Any], path: str
) -> None:
    keyless = {"random": RANDOM, "random/batch": RANDOM_BATCH}
    row = keyless.get(path) or TABLE[path]
    address = f"/api/v1/{path}" if path in keyless else f"/api/v1/keys/{{key}}/{path}"
    post = document["paths"][address]["post"]
    (shown,) = post["requestBody"]["content"]["application/json"]["examples"].values()
    row.reader(json.dumps(shown["value"]).encode())
    answer = post["responses"]["200"]["content"]["application/json"]
    (shown,) = answer["examples"].values()
    assert msgspec.convert(shown["value"], row.response)
    assert answer["schema"] == {"$ref": f"#/components/schemas/{row.response.__name__}"}


def test_a_batchs_results_are_answers_of_the_single_form_or_errors(
    document: dict[str, Any],
) -> None:
    schemas = document["components"]["schemas"]
    results = schemas["EncryptBatchResponse"]["properties"]["results"]
    assert results["items"]["anyOf"] == [
        {"$ref": "#/components/schemas/EncryptResponse"},
        {"$ref": "#/components/schemas/ItemError"},
    ]
    asked = schemas["EncryptBatchRequest"]["properties"]["items"]
    assert asked["items"] == {"$ref": "#/components/schemas/EncryptRequest"}
    assert asked["minItems"] == 1
    assert {"status", "code", "title", "detail"} <= set(schemas["ItemProblem"]["required"])


def test_every_reference_of_the_document_has_its_target(document: dict[str, Any]) -> None:
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named <= document["components"]["schemas"].keys()
    assert len(named) > 60


def test_the_set_of_public_keys_has_its_own_media_type(document: dict[str, Any]) -> None:
    answer = document["paths"]["/api/v1/keys/{key}/jwks.json"]["get"]["responses"]["200"]
    (media,) = answer["content"]
    assert media == "application/jwk-set+json"
    (shown,) = answer["content"][media]["examples"].values()
    assert shown["value"]["keys"][0]["kty"] == "EC"


def test_examples_of_bodies_are_taken_by_their_readers(document: dict[str, Any]) -> None:
    """An example that the API would refuse is worse than none."""
    from kms_console.api.rest.codecs.strict import Reader
    from kms_console.api.rest.schema import _structs

    seen = 0
    for item in document["paths"].values():
        for op in item.values():
            body = op.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in body.get("examples", {}).values():
                kind = _structs[body["schema"]["$ref"].rpartition("/")[2]]
                Reader(kind).plain(json.dumps(example["value"]).encode())
                seen += 1
    assert seen > 15
    with pytest.raises(Invalid):
        Reader(_structs["CreateKey"]).plain(b"{}")


def test_the_document_and_its_page_are_there_for_everybody(client: Any) -> None:
    answer = client.get("/api/v1/openapi.json", headers={"Accept": "text/html"})
    assert answer.status_code == 200
    assert json.loads(answer.content)["info"]["title"] == "KMS Console API"
    page = client.get("/api/v1/docs")
    text = page.content.decode()
    assert page.status_code == 200
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert "style=" not in text and "<style" not in text
    policy = page.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in policy and "unsafe-eval" not in policy
    static = re.findall(r'(?:src|href)="/static/([^"]+)"', text)
    assert len(static) == 4
    for path in static:
        assert finders.find(path), path
