"""The contract of stores that keep states of their own: what the console believes comes to be there.

conform() brings a store in line, observe() says what is there, and expressed() what should be. Each
server in turn; what it can't express is told by expressed(), never by its name.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keys.algorithms import SPECS
from keys.backends import materials
from keys.backends.base import Backend, Material, NoMaterial
from keys.backends.views import KeyView
from keys.errors import BackendUnavailable, StateForbids, Unsupported
from keys.states import KeyState, VersionState
from tests.backends.keeping import DAY, Kept, kept, plain
from tests.backends.uses import (
    COMMON,
    Attempts,
    attempts,
    check_use,
    destroyed,
    foreign,
    offers,
    some_material,
    some_spec,
)
from tests.peers.faults import Fault, Faults, in_front_of
from tests.peers.peer import Peer

Needs = Callable[[str], None]
Gaps = frozenset[str]

ACTIVE, SUSPENDED = VersionState.ACTIVE, VersionState.SUSPENDED
DEACTIVATED, COMPROMISED = VersionState.DEACTIVATED, VersionState.COMPROMISED

# A secret and a pair; the others of the console's defaults where there is time.
SPECS_HERE = [
    pytest.param(spec, marks=() if spec in ("AES_256", "ECC_NIST_P256") else pytest.mark.exhaustive)
    for spec in COMMON
]
each_spec = pytest.mark.parametrize("spec", SPECS_HERE)


def rotates(spec: str, needs: Needs) -> None:
    """Skip where the server can't rotate: a pair is rotated by another key, if need be."""
    if not SPECS[spec].asymmetric:
        needs("rotation")


def rotated(store: Backend, spec: str) -> Kept:
    """A key with two versions."""
    key = kept(store, spec)
    key.rotate()
    return key


def uses(key: Kept, gaps: Gaps) -> Attempts:
    """Use the newest version, and return how it can be used again."""
    return attempts(key.store, key.spec, key.usage, key.materials[-1], gaps)


def works(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


def refused(calls: Attempts) -> None:
    for call in calls.closed:
        with pytest.raises((StateForbids, NoMaterial)):
            call()


def all_pages(store: Backend, limit: int) -> list[KeyView]:
    found: list[KeyView] = []
    cursor, pages = "", 0
    while True:
        page = store.discover(cursor, limit)
        assert len(page.keys) <= limit
        found.extend(page.keys)
        pages += 1
        assert pages < 500, "the listing has an end"
        if not page.cursor:
            return found
        assert page.cursor != cursor
        cursor = page.cursor


# --- discovery


def test_discovery_finds_what_was_made_page_by_page(peer: Peer) -> None:
    store = peer.backend()
    try:
        offered = [spec for spec in COMMON if spec in store.capabilities().algorithms]
        keys = [kept(store, spec) for spec in (*offered, offered[0])]
        found = all_pages(store, limit=2)
        references = [view.reference for view in found]
        assert len(set(references)) == len(references)
        assert references == [view.reference for view in all_pages(store, limit=100)]
        for key in keys:
            (view,) = [one for one in found if one.version(key.versions[0].handle)]
            assert (view.spec, view.usage, view.problem) == (key.spec, key.usage, "")
            assert view.algorithm in ("", key.algorithm)
            assert 0 < len(view.reference) <= 500
            assert view.name
            assert (view.state, view.imported) == (KeyState.ENABLED, False)
            assert not view.provider_managed
            assert not [name for name in view.tags if name.startswith("kms-console")]
            assert_inspected(key, view)
    finally:
        store.close()


def assert_inspected(key: Kept, discovered: KeyView) -> None:
    """One key says the same however it is asked for."""
    inspected = key.store.inspect(discovered.reference)
    observed = key.store.observe(key.wanted)
    assert inspected is not None
    assert observed is not None
    assert plain(inspected) == plain(observed)
    assert plain(inspected) == plain(discovered)
    for version, material in zip(inspected.versions, key.materials, strict=True):
        assert version.public_key == material.public_key


def test_what_is_not_there_is_neither_inspected_nor_observed(remote: Backend) -> None:
    key = kept(remote, some_spec(remote))
    view = remote.observe(key.wanted)
    assert view is not None
    for reference in foreign(view.reference)[:1]:
        assert remote.inspect(reference) is None
    for handle in foreign(key.versions[0].handle)[:1]:
        strange = replace(key.wanted, versions=(replace(key.versions[0], handle=handle),))
        assert remote.observe(strange) is None


def test_listing_and_looking_change_nothing(peer: Peer) -> None:
    store = peer.backend()
    try:
        key = kept(store, some_spec(store))
        before = key.align()
        for view in all_pages(store, limit=1):
            store.inspect(view.reference)
        assert plain(key.in_line()) == plain(before)
    finally:
        store.close()


# --- the next version


@each_spec
def test_a_rotation_makes_one_version_however_often_it_is_asked_for(
    remote: Backend, spec: str, needs: Needs
) -> None:
    offers(remote, spec)
    rotates(spec, needs)
    key = kept(remote, spec)
    label = uuid.uuid4()
    assert remote.find(label, key.parent) is None
    made = key.generate(label)
    assert key.generate(label) == made
    assert remote.find(label, key.parent) == made
    assert made.handle != key.versions[0].handle
    key.believe(made)
    assert len(key.align().versions) == 2


@each_spec
def test_after_a_rotation_the_new_version_is_primary_and_the_old_one_still_reads(
    remote: Backend, spec: str, needs: Needs, gaps: Gaps
) -> None:
    offers(remote, spec)
    rotates(spec, needs)
    key = kept(remote, spec)
    key.align()
    old = uses(key, gaps)
    key.rotate()
    seen = key.align()
    told = remote.expressed(key.wanted)
    assert [version.primary for version in seen.versions] == [
        version.primary for version in told.versions
    ]
    works([*old.read, *old.open])
    check_use(remote, spec, key.usage, key.materials[1], gaps)
    key.rotate()
    key.align()
    works([*old.read, *old.open])


@each_spec
def test_material_made_under_a_name_of_its_own_is_another_key(remote: Backend, spec: str) -> None:
    offers(remote, spec)
    one, other = kept(remote, spec), kept(remote, spec)
    references = [view.reference for key in (one, other) if (view := remote.observe(key.wanted))]
    assert len(set(references)) == 2


@each_spec
def test_material_from_outside_is_a_version_like_any_other(
    remote: Backend, spec: str, needs: Needs, gaps: Gaps
) -> None:
    offers(remote, spec)
    if spec not in remote.capabilities().imports:
        pytest.skip(f"This store takes no {spec} from outside")
    needs("import")
    key, label, secret = Kept(remote, spec, imported=True), uuid.uuid4(), some_material(spec)

    def brought() -> Material:
        return remote.import_material(label, spec, secret, usage=key.usage, parent=key.parent)

    material = brought()
    assert remote.find(label, key.parent) == material
    assert brought() == material
    assert material.check_value == materials.check_value(SPECS[spec], secret)
    key.believe(material)
    seen = key.align()
    assert seen.imported
    assert not [name for name in seen.tags if name.startswith("kms-console")]
    calls = uses(key, gaps)
    key.state = KeyState.DISABLED
    key.align()
    key.state = KeyState.ENABLED
    key.align()
    works(calls.all)


# --- states


@each_spec
def test_an_old_version_in_any_state(remote: Backend, spec: str, needs: Needs, gaps: Gaps) -> None:
    offers(remote, spec)
    rotates(spec, needs)
    key = rotated(remote, spec)
    key.align()
    for state in (SUSPENDED, DEACTIVATED, COMPROMISED):
        key.set(0, state)
        seen = key.align()
        uses(key, gaps)  # the primary is what it was
        remote.conform(key.wanted)
        assert plain(key.in_line()) == plain(seen), "a second time changes nothing"


@each_spec
def test_a_suspended_version_is_refused_by_the_store_where_it_shows_that(
    remote: Backend, spec: str, gaps: Gaps
) -> None:
    offers(remote, spec)
    key = kept(remote, spec)
    calls = uses(key, gaps)
    key.set(0, SUSPENDED)
    seen = key.align()
    shown = seen.version(key.versions[0].handle)
    assert shown is not None
    refusing = shown.state is SUSPENDED or seen.state is KeyState.DISABLED
    if refusing and "states" not in gaps:
        refused(calls)
    key.set(0, ACTIVE)
    key.align()
    works(calls.all)


@each_spec
def test_a_disabled_key_is_refused_and_an_enabled_one_works_again(
    remote: Backend, spec: str, gaps: Gaps
) -> None:
    offers(remote, spec)
    key = kept(remote, spec)
    calls = uses(key, gaps)
    key.state = KeyState.DISABLED
    seen = key.align()
    remote.conform(key.wanted)
    assert plain(key.in_line()) == plain(seen), "a second time changes nothing"
    if "states" not in gaps and seen.state is KeyState.DISABLED:
        refused(calls)
    key.state = KeyState.ENABLED
    assert key.align().state is KeyState.ENABLED
    works(calls.all)


# --- destruction


def in_window(store: Backend, longer: int = 0) -> datetime:
    """The first date that the store's own window allows, or some days later; 7 days without one."""
    least, most = store.capabilities().window or (7, 30)
    return datetime.now(UTC) + DAY * min(most, max(least, 1) + longer) - timedelta(hours=2)


@each_spec
def test_a_scheduled_destruction_is_the_stores_own_and_can_be_cancelled(
    remote: Backend, spec: str, gaps: Gaps
) -> None:
    offers(remote, spec)
    key = kept(remote, spec)
    calls = uses(key, gaps)
    key.align()
    for longer in (0, 3):
        key.state, key.destroy_at = KeyState.PENDING_DESTRUCTION, in_window(remote, longer)
        seen = key.align()
        remote.conform(key.wanted)
        assert key.in_line().state == seen.state, "a second time changes nothing"
        if "states" not in gaps:
            refused(calls)
        key.state, key.destroy_at = KeyState.DISABLED, None
        key.align()
    key.state = KeyState.ENABLED
    key.align()
    works(calls.all)


@each_spec
def test_one_versions_scheduled_destruction_leaves_the_others(
    remote: Backend, spec: str, needs: Needs, gaps: Gaps
) -> None:
    offers(remote, spec)
    rotates(spec, needs)
    key = rotated(remote, spec)
    key.align()
    key.set(0, DEACTIVATED, in_window(remote))
    key.align()
    uses(key, gaps)
    key.set(0, DEACTIVATED)
    key.align()


def test_what_is_destroyed_is_gone_or_waits_and_asking_twice_is_as_good_as_once(
    remote: Backend,
) -> None:
    key = rotated_if_possible(remote)
    handles = [version.handle for version in key.versions]
    gone = destroyed(remote, *handles)
    assert destroyed(remote, *handles) == gone
    view = remote.observe(key.wanted)
    if gone:
        assert view is None or not view.versions or view.state is KeyState.DESTROYED
    else:
        assert view is not None
        pending = view.state is KeyState.PENDING_DESTRUCTION
        assert pending or all(version.destroy_at for version in view.versions)


def rotated_if_possible(store: Backend) -> Kept:
    key = kept(store, some_spec(store))
    with suppress(Unsupported):
        key.rotate()
    return key


# --- the store's own rotation, and tags


@each_spec
def test_the_stores_own_rotation_is_switched_on_and_off(
    remote: Backend, spec: str, gaps: Gaps
) -> None:
    offers(remote, spec)
    key = kept(remote, spec)
    assert key.align().rotation_days is None
    for days in (120, *(() if "period" in gaps else (200,)), None):
        key.rotation_days = days
        if "period" in gaps and days is not None:
            remote.conform(key.wanted)
            continue
        key.align()


def test_tags_that_the_console_knows_are_written_and_others_left_alone(remote: Backend) -> None:
    key = kept(remote, some_spec(remote))
    key.tags = {"team": "billing", "env": "test"}
    before = key.align()
    key.tags = {"team": "archive"}
    after = key.align()
    assert after.tags.get("env") == before.tags.get("env")
    assert not [name for name in after.tags if name.startswith("kms-console")]
    assert plain(key.align()) == plain(after)


# --- a crash between what a call does and its answer


@pytest.fixture
def behind(peer: Peer, tmp_path: Path) -> Iterator[tuple[Backend, Backend, Faults]]:
    """A fresh place, reached straight, and through a proxy that can lose answers; and the proxy."""
    settings = peer.fresh()
    proxy, through = in_front_of(settings, tmp_path)
    straight, unsure = peer.backend(settings), peer.backend(through)
    yield straight, unsure, proxy
    unsure.close()
    straight.close()
    proxy.close()


# A generate() makes a few calls at most; each in turn loses its answer.
CALLS = 12


def test_a_first_version_whose_making_lost_an_answer_is_there_once(
    behind: tuple[Backend, Backend, Faults],
) -> None:
    straight, unsure, proxy = behind
    made: list[str] = []
    for call in range(CALLS):
        key, label = Kept(straight, some_spec(straight)), uuid.uuid4()
        lost = crashed(key, label, unsure, proxy, call)
        found = straight.find(label, key.parent)
        material = key.generate(label)
        assert found in (None, material)
        made.append(material.handle)
        if not lost:
            break
    assert not lost, "at the last turn no answer was lost"
    assert call > 0, "at the first one was"
    ours = [view for view in all_pages(straight, 100) if not view.provider_managed]
    assert sorted(version.handle for view in ours for version in view.versions) == sorted(made)
    assert len(ours) == len(made)


def test_a_rotation_that_lost_an_answer_made_one_version(
    behind: tuple[Backend, Backend, Faults], needs: Needs
) -> None:
    straight, unsure, proxy = behind
    rotates(some_spec(straight), needs)
    for call in range(CALLS):
        key, label = kept(straight, some_spec(straight)), uuid.uuid4()
        lost = crashed(key, label, unsure, proxy, call)
        found = straight.find(label, key.parent)
        material = key.generate(label)
        assert found in (None, material)
        key.believe(material)
        seen = straight.observe(key.wanted)
        assert seen is not None
        handles = [version.handle for version in key.versions]
        assert [version.handle for version in seen.versions] == handles
        if not lost:
            break
    assert not lost, "at the last turn no answer was lost"
    assert call > 0, "at the first one was"


def crashed(key: Kept, label: uuid.UUID, unsure: Backend, proxy: Faults, call: int) -> bool:
    """Make a version through the proxy, whose answer number `call` is lost; whether there was one."""
    proxy.clear()
    proxy.next(Fault.swallow(), after=call)
    try:
        key.generate(label, unsure)
    except BackendUnavailable:
        return True
    return proxy.pending == 0
