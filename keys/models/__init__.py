"""The tables of the domain, one file per noun."""

from keys.models.access import (
    Credential,
    Grant,
    Installation,
    Limit,
    Principal,
    QuotaCount,
)
from keys.models.approval import Approval, Vote
from keys.models.classification import Classification
from keys.models.discovery import FoundKey, Listing
from keys.models.drift import Drift, StoreView
from keys.models.imports import Ceremony, Custodian, ImportTicket
from keys.models.job import Heartbeat, Job
from keys.models.key import Key, KeyVersion, MessageCount
from keys.models.keystore import KeyStore

__all__ = [
    "Approval",
    "Ceremony",
    "Classification",
    "Credential",
    "Custodian",
    "Drift",
    "FoundKey",
    "Grant",
    "Heartbeat",
    "ImportTicket",
    "Installation",
    "Job",
    "Key",
    "KeyStore",
    "KeyVersion",
    "Limit",
    "Listing",
    "MessageCount",
    "Principal",
    "QuotaCount",
    "StoreView",
    "Vote",
]
