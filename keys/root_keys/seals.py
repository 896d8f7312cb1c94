"""Sealing and opening the software store's rows under the root keys that there are."""

from __future__ import annotations

import uuid

from keys import sealing
from keys.backends.software.models import WrappedMaterial
from keys.errors import Unavailable
from keys.root_keys import opening, rows
from keys.secret import Secret

PURPOSE = "software key material"


def purpose(store_id: uuid.UUID, spec: str, exportable: bool = False) -> str:
    """Return what a row's seal is bound to beside its label.

    The spec, the store and whether it may leave are part of it: a row edited to say otherwise does
    not open.
    """
    return f"{PURPOSE} {store_id} {spec}" + (" exportable" if exportable else "")


def seal(row: WrappedMaterial, secret: Secret, under: tuple[str, Secret] | None = None) -> None:
    """Fill in `wrapped` and `root_id` under the root key that seals now. Raises Unavailable.

    `under`: what opening.present() said, where it was asked already.
    """
    root_id, key = under or opening.present()
    row.wrapped = sealing.seal(_purpose(row), row.label, secret, key)
    row.root_id = root_id


def unseal(row: WrappedMaterial) -> Secret:
    """Return a row's material.

    Raises Unavailable where its root key can't be had now, BackendError where the row was changed.
    """
    wrapped = bytes(row.wrapped)
    sealing.check_form(wrapped)
    try:
        key = opening.by_id(sealing.sealed_under(wrapped))
    except Unavailable:
        # Perhaps it was sealed anew since it was read, and its root key is gone.
        fresh = WrappedMaterial.objects.filter(pk=row.pk, store_id=row.store_id).first()
        if fresh is None or bytes(fresh.wrapped) == wrapped:
            raise
        return unseal(fresh)
    return sealing.unseal(_purpose(row), row.label, wrapped, key)


def settle(row: WrappedMaterial, secret: Secret) -> None:
    """Seal a row that was just inserted once more where another root key has taken over meanwhile.

    Without it, a row inserted after a rotation looked for the last time would stay under a root key
    that is then destroyed. Whoever inserts before the new one takes over is seen by the rotation;
    whoever inserts later sees the new one here.
    """
    current = rows.current()
    if current is not None and current.id != row.root_id:
        replace(row, secret)


def replace(row: WrappedMaterial, secret: Secret) -> bool:
    """Seal a row anew, unless somebody else has; whether it was done."""
    before, under = bytes(row.wrapped), row.root_id
    seal(row, secret)
    return put(row.label, before, under, row)


def put(label: uuid.UUID, before: bytes, under: str, row: WrappedMaterial) -> bool:
    """Write a new seal over the one that was read, by compare-and-set."""
    same = WrappedMaterial.objects.filter(pk=label, root_id=under, wrapped=before)
    return bool(same.update(wrapped=row.wrapped, root_id=row.root_id))


def _purpose(row: WrappedMaterial) -> str:
    return purpose(row.store_id, row.spec, row.exportable)
