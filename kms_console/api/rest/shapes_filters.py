"""How a saved filter of the audit trail looks as JSON."""

from __future__ import annotations

import uuid
from typing import Annotated

from msgspec import Meta

from kms_console.api.rest.shapes import Shape, Time


class SavedFilter(Shape):
    """A question to the trail that somebody keeps."""

    id: uuid.UUID
    name: str
    query: Annotated[
        dict[str, str],
        Meta(
            description="Filters of `GET audit` as text, the object as `object_id`; and `range`, one of "
            "`today`, `7d`, `30d`, `year`, which moves with the day."
        ),
    ]
    shared: Annotated[bool, Meta(description="Whether everybody who may read the trail sees it.")]
    own: Annotated[bool, Meta(description="Whether it is the caller's.")]
    created_at: Time
