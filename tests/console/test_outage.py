"""While the database is away the console says so, and goes on by itself afterwards."""

from __future__ import annotations

import pytest
from django.db import connections
from django.test import Client

from tests.console.conftest import signed_in_client
from tests.house import House


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_without_its_database_the_console_says_so_and_recovers(house: House) -> None:
    person, nobody = signed_in_client("olga"), Client()
    for client in (person, nobody):
        client.raise_request_exception = False
    server = house.database.server
    assert server is not None
    server.stop()
    try:
        for client, address in ((person, "/"), (person, "/keys"), (nobody, "/sign-in")):
            answer = client.get(address)
            assert answer.status_code == 503, address
            assert "The database can't be reached now" in answer.content.decode().replace(
                "&#x27;", "'"
            )
            assert answer["Retry-After"] == "5"
        answer = person.get("/api/v1/keys")
        assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
        assert answer.json()["code"] == "unavailable"
    finally:
        connections.close_all()
        server.start()
    assert person.get("/keys").status_code == 200
