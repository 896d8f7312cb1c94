"""Bringing one's own key (BYOK): import parameters, import, deletion of imported material."""

from __future__ import annotations

from typing import Any

from keys import gate, jobs, parameters, targets
from keys.actions import Action
from keys.administration.intents import intend, settled
from keys.algorithms import SPECS
from keys.backends import materials
from keys.errors import Conflict, Invalid, StateForbids
from keys.gate.changes import Change
from keys.models import Job, Key
from keys.models.job import OPEN_STATES, JobKind
from keys.secret import Secret
from keys.states import KeyState


def _weigh(target: targets.Target[Key], arguments: dict[str, Any]) -> None:
    """Let officers vote on the material's check value: what they agree to is this material and no other."""
    material, claimed = arguments["material"], arguments["check_value"]
    if not isinstance(material, Secret):
        raise Invalid("The material is missing.", field="material")
    arguments["check_value"] = materials.check_value(SPECS[target.row.spec], material)
    if claimed and claimed != arguments["check_value"]:
        raise Invalid("The material does not have that check value.", field="check_value")


@gate.change(Action.IMPORT_KEY, on=targets.key, prepare=_weigh)
def import_key(
    change: Change[Key],
    *,
    material: Secret,
    check_value: str = "",
    originated_at: str | None = None,
    reason: str = "",
) -> Key:
    """Import a key's material: raw bytes for secrets, PKCS#8 DER for key pairs.

    `originated_at` is when the material was made; its usage periods count from there. Where votes
    are needed, officers agree to its check value and date; the requester then calls again with the
    same material, which is never kept or queued meanwhile.
    """
    key = change.row
    if key.state != KeyState.PENDING_IMPORT:
        raise StateForbids("The key does not wait for an import.")
    origin = parameters.moment(originated_at, "originated_at")
    if origin and origin > change.now:
        raise Invalid("originated_at lies in the future.", field="originated_at")
    if Job.objects.filter(key=key, kind=JobKind.IMPORT, state__in=OPEN_STATES).exists():
        raise Conflict("An import of this key is under way.")
    job = intend(change, key, JobKind.IMPORT, originated_at=origin)
    change.after(lambda: settled(key, jobs.run_import(job.id, material, check_value)))
    return key
