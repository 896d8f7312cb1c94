"""Every member of every body with values that are odd but well formed: an answer, never a 500."""

from __future__ import annotations

from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator

from kms_console.api.rest.codecs import strict
from tests.api.cast import GOOD, furnish
from tests.api.clients import PROBLEM, application, person, routes
from tests.house import House

ODD: list[Any] = [
    "",
    "x" * 2000,
    "\u202e\u0001💥\ufffe",
    "=cmd()",
    -1,
    2**53 + 1,
    1.5,
    True,
    None,
    [],
    ["", "x" * 300],
    {},
    {"\u0001": "💥", "": "x" * 300},
    {"m": -1, "n": 10**15},
]


def _members() -> dict[tuple[str, str], list[str]]:
    """Return the members of every route's body, as the document names them."""
    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    components = document["components"]["schemas"]
    found = {}
    for path, item in document["paths"].items():
        for method, op in item.items():
            if "requestBody" in op:
                reference = op["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                members = components[reference.rpartition("/")[2]]["properties"]
                pattern = path.removeprefix("/api/v1/").replace("{", "<").replace("}", ">")
                found[method.upper(), pattern] = list(members)
    return found


def test_some_odd_values_get_an_answer(house: House) -> None:
    assert _ask(house, "olga", ODD[::3]) > 300


@pytest.mark.exhaustive
@pytest.mark.each_database
@pytest.mark.parametrize("name", ["olga", "ada", "billing"])
def test_all_odd_values_get_an_answer(house: House, name: str) -> None:
    assert _ask(house, name, ODD) > 300


def _ask(house: House, name: str, values: list[Any]) -> int:
    parts, members, asked = furnish(house), _members(), 0
    api = application(house, name) if name in house.tokens else person(name)
    uses = name == "billing"
    for route in routes():
        if (route.method, route.pattern) not in members:
            continue
        if uses and not (route.pattern.startswith("keys/") or route.pattern == "random"):
            continue
        good = GOOD.get((route.method, route.name), {})
        for member in members[route.method, route.pattern]:
            for value in values:
                body = {**good, member: value}
                answer = api.call(route.method, route.path(**parts), body)
                assert answer.status < 500, (str(route), member, value, answer.body)
                assert answer.status < 300 or answer.type == PROBLEM
                asked += 1
    return asked


def test_a_member_that_stands_twice_is_found_in_one_pass() -> None:
    """An event loop that compares each name with each stands still for minutes at 1 MiB."""
    compared = 0

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = [Name(f"name {number}") for number in range(2000)]
    with pytest.raises(strict._Twice, match="name 1999"):
        strict._pairs([(name, "") for name in [*names, Name("name 1999")]])
    assert compared < 5 * len(names)
