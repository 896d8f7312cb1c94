"""The tables of the domain, one file per noun."""

from keys.models.access import Credential, Grant, Installation, Principal
from keys.models.approval import Approval, Vote
from keys.models.classification import Classification
from keys.models.job import Heartbeat, Job
from keys.models.key import Key, KeyVersion
from keys.models.keystore import KeyStore

__all__ = [
    "Approval",
    "Classification",
    "Credential",
    "Grant",
    "Heartbeat",
    "Installation",
    "Job",
    "Key",
    "KeyStore",
    "KeyVersion",
    "Principal",
    "Vote",
]
