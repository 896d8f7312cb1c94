"""Every test of the API goes through both doors of key use; this is the only place that says so.

`loop` is the ASGI application as users reach it, `views` is Django alone. What uses no key ends in
Django at either, so there `make test` takes the first, and the second is exhaustive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.api.clients import Door, Loop, Views, opened


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    test = metafunc.definition
    if "house" not in metafunc.fixturenames or test.get_closest_marker("own_door"):
        return
    marker = test.get_closest_marker("each_door")
    # `fast`: the one door that `make test` has time for; the other is exhaustive.
    fast = marker.kwargs.get("fast") if marker is not None else Loop.name
    later = pytest.mark.exhaustive
    doors = [
        pytest.param(name, marks=[later] if fast not in (None, name) else [])
        for name in (Loop.name, Views.name)
    ]
    metafunc.parametrize("door", doors, indirect=True)


@pytest.fixture(autouse=True)
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    """The door that this test's requests go through."""
    if getattr(request, "param", Loop.name) == Views.name:
        views = Views()
        with opened(views):
            yield views
        return
    with asyncio.Runner() as runner:
        loop = Loop(runner)
        with opened(loop):
            yield loop
    told = {mark.name for mark in request.node.iter_markers()}
    if loop.uses and not told & {"each_door", "own_door"}:
        pytest.fail("This test uses keys, which both doors must show: mark it each_door.")
