"""What a stream to a SIEM has still to deliver is not dropped from the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audit import retention
from audit.models import Cursor
from keys import administration
from keys.administration.retention import droppable
from keys.errors import Conflict
from keys.services import operator
from tests.house import House
from tests.keys.test_holds import archive_folder, filled

__all__ = ["archive_folder"]


def test_what_a_stream_has_still_to_deliver_is_not_dropped(
    house: House, archive_folder: Path, settings: Any
) -> None:
    filled(house)
    row = administration.archive_audit(operator(), entries=256)
    settings.AUDIT_STREAMS = ["https://siem.example.org/in?from=0"]
    assert droppable() == []
    with pytest.raises(Conflict, match="before 0 only"):
        administration.drop_audit(operator(), "0")
    assert house.last_entry(action="drop_audit")["outcome"] == "failed"
    assert retention.rows_left(row) == 256

    # An address that can't be used may be that of a stream that is behind.
    settings.AUDIT_STREAMS = ["https://siem.example.org/in?format=xml"]
    with pytest.raises(Conflict, match="before 0 only"):
        administration.drop_audit(operator(), "0")

    settings.AUDIT_STREAMS = ["https://siem.example.org/in?from=256"]
    assert droppable() == [row]
    administration.drop_audit(operator(), "0")
    assert retention.rows_left(row) == 0
    assert not Cursor.objects.exists()  # looking begins no stream
