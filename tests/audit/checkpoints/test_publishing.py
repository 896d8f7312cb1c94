"""Checkpoints at every kind of place at once: a folder, a bucket with Object Lock, a webhook."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from audit import checkpoints
from audit.checkpoints import notes
from audit.places import open_place
from tests.audit.checkpoints.helpers import grow, round_of
from tests.audit.receivers import Hook
from tests.databases import Database
from tests.peers.peer import Peer


@pytest.fixture
def bucket(moto: Peer, monkeypatch: pytest.MonkeyPatch) -> str:
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret-of-anybody")
    endpoint, name = moto.fresh()["endpoint"], f"notes-{os.getpid()}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    client.close()
    return f"s3://{name}/kms?endpoint={endpoint}&region=us-east-1"


@pytest.mark.exhaustive
def test_a_note_gets_to_every_kind_of_place_and_a_webhook_hears_of_each_once(
    database: Database, bucket: str, settings: Any, tmp_path: Path
) -> None:
    settings.SIGNER_FOLDER = folder = tmp_path / "signer"
    settings.AUDIT_WEBHOOK_SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()
    hook = Hook()
    settings.AUDIT_PUBLISH = [f"file://{tmp_path}/outside", bucket, hook.url()]
    try:
        grow(2)
        assert round_of(folder).publishing == ""
        hook.kill()
        grow(2)
        assert "fails at 1 of 3 places" in round_of(folder).publishing
        hook.start()
        grow(2)
        assert round_of(folder).publishing == ""
    finally:
        hook.kill()
    newest = checkpoints.latest()
    assert newest is not None
    for url in settings.AUDIT_PUBLISH[:2]:
        place = open_place(url)
        assert place.get("checkpoint").decode() == newest.note
        names = place.names("checkpoints/")
        found = [notes.parse_checkpoint(place.get(name))[1].size for name in names]
        assert sorted(found) == [2, 4, 6]
    posted = [request.json for request in hook.requests]
    sizes = [notes.parse_checkpoint(body["text"])[1].size for body in posted]
    assert sizes == [2, 4, 6]
    assert {body["name"].split("/")[0] for body in posted} == {"checkpoints"}
