"""Bringing a key's material, taking it away again, and taking it out."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration
from keys.secret import Secret
from kms_console.api.rest import shapes, shown
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation
from kms_console.api.rest.views.base import Asked, Door, Why, caller_of, read
from kms_console.api.rest.views.keys import settled
from kms_console.api.rest.views.versions import whole

Wrapped = Annotated[
    bytes, Meta(max_length=8192, description="The wrapped material in base64. Never kept.")
]
Token = Annotated[
    str, Meta(max_length=256, description="The token that came with the import parameters.")
]
CheckValue = Annotated[
    str,
    Meta(max_length=64, description="Hexadecimal; refused where the material has another."),
]
Expiry = Annotated[
    shapes.Moment, Meta(description="When the material is removed. Left out or null: never.")
]


class AskParameters(Asked):
    spec: Literal["RSA_4096", "RSA_3072"] | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class ImportParameters(shapes.Shape):
    """A key to wrap material under and a token, for one import until `expires_at`.

    `public_key` is DER SubjectPublicKeyInfo in base64. The token is shown this once.
    """

    ticket: uuid.UUID
    public_key: bytes
    token: str
    algorithms: list[str]
    expires_at: shapes.Time


class ImportKey(Asked):
    """Wrapped material with its token, or under a wrapping key of the console, or a ceremony's."""

    wrapped: Wrapped | UnsetType = UNSET
    token: Token | UnsetType = UNSET
    algorithm: Literal["RSA_AES_KEY_WRAP_SHA_256", "RSAES_OAEP_SHA_256", "AES_KWP"] | UnsetType = (
        UNSET
    )
    wrapping_key: (
        Annotated[str, Meta(description="AES_KWP: the id or alias of a key that wraps keys.")]
        | UnsetType
    ) = UNSET
    ceremony: Annotated[str, Meta(description="A complete ceremony's id.")] | UnsetType = UNSET
    check_value: CheckValue | UnsetType = UNSET
    originated_at: shapes.Moment | UnsetType = UNSET
    expires_at: Expiry | UnsetType = UNSET
    number: (
        Annotated[int, Meta(description="The version whose own material comes back.")]
        | UnsetType
        | None
    ) = UNSET
    reason: str | UnsetType = UNSET


class ExportKey(Asked):
    """`number`: a version; left out, the primary one."""

    public_key: Annotated[
        str,
        Meta(
            max_length=16384,
            description="The recipient's: PEM, or DER in base64; RSA with 3072 bits at least, or X-Wing.",
        ),
    ]
    number: int | UnsetType | None = UNSET
    algorithm: (
        Literal[
            "RSA_AES_KEY_WRAP_SHA_256",
            "RSAES_OAEP_SHA_256",
            "HPKE_X_WING_HKDF_SHA_256_AES_256_GCM",
        ]
        | UnsetType
    ) = UNSET
    reason: str | UnsetType = UNSET


class Exported(shapes.Shape):
    """A version's material, wrapped to the recipient. This answer is the only copy."""

    version: int
    algorithm: str
    wrapped: bytes
    check_value: shapes.Hex


class Parameters(Door):
    @operation(
        "import_parameters",
        "Get import parameters",
        tag="keys",
        body=AskParameters,
        answers={200: ImportParameters},
        example={"spec": "RSA_4096"},
        description="Only for keys that were created for imports. The token is good for one import "
        "into this key, within 24 hours.",
    )
    def post(self, request: Request, key: str) -> Response:
        caller, values = caller_of(request), given(read(request, AskParameters))
        made = administration.import_parameters(caller, key, **values)
        return Response(
            ImportParameters(
                ticket=made.ticket,
                public_key=made.public_key,
                token=made.token.reveal().decode(),
                algorithms=list(made.algorithms),
                expires_at=made.expires_at,
            )
        )


class Import(Door):
    @operation(
        "import_key",
        "Import a key's material",
        tag="keys",
        body=ImportKey,
        answers={200: shapes.Key, 202: shapes.KeyCreation},
        waits=True,
        description="Raw bytes of a secret, PKCS#8 DER of a key pair. A key that waits for its import "
        "takes its first version, an enabled one its next. Where votes are needed, send the same "
        "material again once they are there: it is not kept meanwhile. Officers vote on its check value, "
        "so it may then come under new import parameters.",
        example={
            "wrapped": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            "token": "2xkqYpZt0VQh3m1r5sYt8w0aBcDeFgHiJkLmNoPqRsT",
            "algorithm": "RSA_AES_KEY_WRAP_SHA_256",
        },
    )
    def post(self, request: Request, key: str) -> Response:
        wanted, caller = read(request, ImportKey), caller_of(request)
        values = _plain(given(wanted, "wrapped", "token"))
        done = administration.import_key(caller, key, **values, **secrets_of(wanted))
        return settled(done, caller, 200)


class Export(Door):
    @operation(
        "export_key",
        "Export a key's material",
        tag="keys",
        body=ExportKey,
        answers={200: Exported},
        waits=True,
        description="Only for keys that were created exportable, and always with officers' votes: on this "
        "recipient's public key. Once they are there, the same request of who asked is answered with the "
        "wrapped material.",
        example={
            "public_key": "-----BEGIN PUBLIC KEY-----\nMIIBojANBg…\n-----END PUBLIC KEY-----\n"
        },
    )
    def post(self, request: Request, key: str) -> Response:
        caller, values = caller_of(request), given(read(request, ExportKey))
        done = administration.export_key(caller, key, **values)
        return Response(
            Exported(
                version=done.version,
                algorithm=done.algorithm,
                wrapped=done.wrapped,
                check_value=done.check_value,
            )
        )


class DeleteMaterial(Door):
    @operation(
        "delete_material",
        "Delete a version's imported material",
        tag="versions",
        body=Why,
        answers={200: shapes.Version},
        waits=True,
        description="The version keeps its state and its `condition` is `unavailable`, until the same "
        "material is imported again.",
        example={"reason": "The contract ended."},
    )
    def post(self, request: Request, key: str, number: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        row = administration.delete_material(caller, key, number=whole(number), **values)
        return Response(shown.version(row, caller))


VERBS: dict[str, Any] = {
    "import-parameters": Parameters.as_view(),
    "import": Import.as_view(),
    "export": Export.as_view(),
}


def secrets_of(wanted: Any) -> dict[str, Any]:
    """Return what must not be seen as what can't be seen."""
    found = {}
    for name in ("wrapped", "token", "component"):
        value = getattr(wanted, name, UNSET)
        if value is not UNSET:
            found[name] = Secret(value.encode() if isinstance(value, str) else value)
    return found


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return plain JSON values: what officers vote on and entries tell."""
    plain: dict[str, Any] = msgspec.to_builtins(values)
    return plain
