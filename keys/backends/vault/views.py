"""Transit keys in the console's words: as they are, and as they could be."""

from __future__ import annotations

from dataclasses import replace

from keys.backends.vault import floors, names, offers
from keys.backends.vault.records import TransitKey
from keys.backends.views import KeyView, VersionView
from keys.states import KeyState, VersionState

DAY = 86_400
# Key states in which nothing of the key may be used.
CLOSED = frozenset({KeyState.DISABLED, KeyState.PENDING_DESTRUCTION, KeyState.DESTROYED})


def view(key: TransitKey) -> KeyView:
    """Return a key as it is. What encrypts without being told a version is the newest one."""
    spec = key.spec
    usage = spec.usages[0] if spec else None
    offered = offers.EVERY[spec.name] if spec else ()
    fitting = spec.algorithms_for(usage, offered) if spec and usage else ()
    return KeyView(
        reference=key.name,
        name=key.name,
        state=KeyState.DISABLED if key.soft_deleted else KeyState.ENABLED,
        versions=tuple(_version(key, number) for number in key.versions),
        spec=spec.name if spec else "",
        usage=usage.value if usage else "",
        algorithm=fitting[0] if fitting else "",
        imported=key.imported,
        rotation_days=-(-key.rotation_seconds // DAY) or None,
        facts=_facts(key),
        problem=_problem(key),
    )


def unreadable(name: str, problem: str) -> KeyView:
    """Return what can be said of a key whose description can't be had."""
    return KeyView(name, name, KeyState.ENABLED, problem=problem)


def _version(key: TransitKey, number: int) -> VersionView:
    return VersionView(
        handle=names.handle(key.name, number),
        state=floors.state(number, key.min_decryption, key.min_encryption),
        primary=number == key.latest,
        public_key=key.public.get(number),
        created_at=key.created.get(number),
    )


def _problem(key: TransitKey) -> str:
    if key.convergent:
        return "Convergent encryption: equal plaintexts give equal ciphertexts."
    if key.derived:
        return "Derived keys need a context for each use, which the console doesn't have."
    if not names.is_name(key.name):
        return "The name of this key is not one that the console can call it by."
    if key.spec is None:
        return f"The console knows no key of transit's type {key.kind[:64]}."
    return ""


def _facts(key: TransitKey) -> dict[str, str]:
    facts = {
        "type": key.kind[:64],
        "min_decryption_version": str(key.min_decryption),
        "min_encryption_version": str(key.min_encryption),
        "exportable": _yes(key.exportable),
        "plaintext backup": _yes(key.backup_allowed),
        "deletion allowed": _yes(key.deletion_allowed),
    }
    if key.soft_deleted is not None:
        facts["soft-deleted"] = _yes(key.soft_deleted)
    if key.rotation_seconds % DAY:  # whole days stand in rotation_days
        facts["rotates after"] = f"{key.rotation_seconds} seconds"
    return facts


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


# --- as they could be


def name_of(wanted: KeyView) -> str:
    """Return the name of the transit key that a key of the console is, "" where it has no versions."""
    return names.parsed(wanted.versions[-1].handle)[0] if wanted.versions else ""


def states(wanted: KeyView) -> dict[int, VersionState]:
    """Return the believed state of each version, by transit's number."""
    name = name_of(wanted)
    numbered = {names.parsed(version.handle): version.state for version in wanted.versions}
    return {number: state for (of, number), state in numbered.items() if of == name}


def closed(wanted: KeyView, rows: floors.Floors) -> bool:
    """Whether nothing of the key may be used: what soft deletion says, where it exists."""
    return wanted.state in CLOSED or rows.blocked


def expressed(wanted: KeyView, *, soft_deletes: bool) -> KeyView:
    """Return what view() would say if the engine were in line. Transit has no dates and no tags."""
    believed = states(wanted)
    if not believed:
        return replace(wanted, state=KeyState.ENABLED, destroy_at=None, tags={})
    rows, newest = floors.wanted(believed), max(believed)
    versions = []
    for version in wanted.versions:
        number = names.parsed(version.handle)[1]
        shown = rows.state(number)
        versions.append(
            replace(
                version,
                state=shown,
                primary=number == newest,
                destroy_at=None,
                # Below the minimum its public key isn't shown.
                public_key=None if shown is VersionState.SUSPENDED else version.public_key,
            )
        )
    shut = soft_deletes and closed(wanted, rows)
    return replace(
        wanted,
        reference=name_of(wanted),
        state=KeyState.DISABLED if shut else KeyState.ENABLED,
        versions=tuple(versions),
        destroy_at=None,
        tags={},
    )
