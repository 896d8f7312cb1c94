from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from keys import administration
from keys.models import Key
from keys.services import operator
from tests.house import House
from tests.keys import stores


@pytest.fixture
def watched(house: House) -> Iterator[dict[str, Callable[[], None]]]:
    """The key `watched`, which billing may use, in a store whose stops a test can set."""
    stores.register()
    try:
        administration.create_key_store(operator(), name="watched", kind="watched")
        administration.create_classification(
            operator(),
            name="watched",
            title="Watched",
            allowed_specs=["AES_256"],
            key_stores=["watched"],
        )
        key: Key = house.key("watched", name="Watched")
        house.grant("billing", key, "encrypt", "decrypt")
        yield stores.WatchedBackend.stops
    finally:
        stores.unregister()
