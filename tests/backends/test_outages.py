"""Each vendor's store behind its pool, when the line to it breaks: noticed late, left alone, found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keys.backends.bounded import TRIES, Bounded
from keys.backends.breaker import OUTAGES
from keys.errors import BackendUnavailable
from tests.backends.clocks import ByHand
from tests.backends.keeping import kept
from tests.backends.uses import attempts, some_spec
from tests.peers.faults import Fault, Faults, in_front_of
from tests.peers.peer import Peer


@pytest.fixture
def behind(peer: Peer, tmp_path: Path) -> Iterator[tuple[Bounded, Faults]]:
    """A store in a pool, as the console uses it, and the proxy before its server."""
    proxy, settings = in_front_of(peer.fresh(), tmp_path)
    store = Bounded(peer.backend(settings), workers=4, timeout=600, clock=ByHand())
    yield store, proxy
    store.close()
    proxy.close()


def test_a_line_that_breaks_for_a_moment_is_not_noticed_and_a_dead_one_is_left_alone(
    behind: tuple[Bounded, Faults], gaps: frozenset[str]
) -> None:
    store, proxy = behind
    key = kept(store, some_spec(store))
    use = attempts(store, key.spec, key.usage, key.materials[0], gaps).closed[0]
    proxy.clear()
    for fault in (Fault.reset(), Fault.status(503)):
        proxy.next(fault)
        use()
        assert proxy.pending == 0

    proxy.next(Fault.reset(), times=None)
    while store.health().facts["circuit"] == "closed":
        before = len(proxy.seen)
        with pytest.raises(BackendUnavailable):
            use()
        assert len(proxy.seen) - before <= max(TRIES, OUTAGES)
    with pytest.raises(BackendUnavailable, match="left alone until"):
        use()
    asked = len(proxy.seen)
    with pytest.raises(BackendUnavailable, match="left alone until"):
        kept(store, key.spec)
    assert len(proxy.seen) == asked, "nobody waits for a store that is known to be away"

    proxy.clear()
    told = store.health()
    assert (told.ok, told.facts["circuit"]) == (True, "closed"), told.detail
    use()
