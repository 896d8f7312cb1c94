"""What the SDK's errors mean to the console. Messages name AWS's code, never what AWS wrote.

Codes: the Common Errors of the AWS KMS API reference, and the errors of each of its actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore import exceptions as sdk

from keys.backends.base import NoMaterial
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    CannotDecrypt,
    Conflict,
    KeyServiceError,
    StateForbids,
    StillWaiting,
    Throttled,
    Unsupported,
)

_THROTTLED = frozenset(
    {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"}
)
_CLOCK = frozenset(
    {
        "SignatureDoesNotMatch",
        "RequestTimeTooSkewed",
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
    }
)
_EXPIRED = frozenset({"ExpiredTokenException", "ExpiredToken", "TokenRefreshRequired"})
_DENIED = frozenset({"AccessDeniedException", "AccessDenied", "NotAuthorizedException"})
_UNKNOWN_KEY = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "IncompleteSignature",
        "OptInRequired",
    }
)
_GONE = frozenset({"NotFoundException"})
_STATE = frozenset({"DisabledException", "KMSInvalidStateException"})
_CIPHERTEXT = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_CANNOT = frozenset({"UnsupportedOperationException", "InvalidKeyUsageException"})
_NO_ACTION = frozenset({"UnknownOperationException", "InvalidAction"})
_AWAY = frozenset(
    {
        "DependencyTimeoutException",
        "KeyUnavailableException",
        "KMSInternalException",
        "InternalFailure",
        "InternalServerError",
        "ServiceUnavailable",
        "ServiceUnavailableException",
    }
)
_NO_CREDENTIAL = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.ProfileNotFound,
    sdk.TokenRetrievalError,
    sdk.UnauthorizedSSOTokenError,
    sdk.SSOError,
    sdk.NoAuthTokenError,
    sdk.InvalidConfigError,
    sdk.ConfigParseError,
    sdk.ConfigNotFound,
    sdk.MetadataRetrievalError,
)
_NO_ANSWER = (
    sdk.HTTPClientError,
    sdk.ConnectionError,
)


class Denied(BackendRefused):
    """The credential is known and valid, and a policy does not allow it this."""


class NoSuchAction(Unsupported):
    """The server has no action of this name at all, for no key; AWS itself has them all."""


def code_of(error: sdk.ClientError) -> str:
    """Return the code of AWS's error, "" where its answer held none."""
    code = _error(error).get("Code")
    return code if isinstance(code, str) and code.isascii() and len(code) < 80 else ""


def refers_elsewhere(error: sdk.ClientError) -> bool:
    """Whether Decrypt says so of a ciphertext that names no key of ours.

    AWS then answers AccessDeniedException, for it doesn't tell whether there is such a key; where
    it is the permission that is missing, the message names the action.
    """
    return code_of(error) in _DENIED and "not authorized" not in str(
        _error(error).get("Message", "")
    )


def translated(error: Exception) -> KeyServiceError:
    """Return the error to raise instead of the SDK's."""
    if isinstance(error, sdk.ClientError):
        return _answered(error)
    name = type(error).__name__
    if isinstance(error, _NO_CREDENTIAL):
        return BackendRefused(f"The SDK has no usable credential for AWS ({name}).")
    if isinstance(error, _NO_ANSWER):
        return BackendUnavailable(f"AWS can't be reached or did not answer in time ({name}).")
    return BackendError(f"The answer of AWS, or the request, makes no sense ({name}).")


def _answered(error: sdk.ClientError) -> KeyServiceError:
    code, status = code_of(error), _status(error)
    named = code or f"HTTP {status}"
    if code in _THROTTLED or status == 429:
        return Throttled(f"AWS asks for fewer calls ({named}).", retry_after=_retry_after(error))
    if code in _CLOCK:
        return BackendRefused(
            f"AWS refuses the signature ({named}): this machine's clock is wrong by more than five "
            "minutes, or the secret access key is."
        )
    if code in _EXPIRED:
        return BackendRefused(f"The credential for AWS has expired ({named}).")
    if code in _UNKNOWN_KEY:
        return BackendRefused(f"AWS does not know this credential ({named}).")
    if code in _DENIED:
        return Denied(
            f"The credential may not do this ({error.operation_name}, {named}); the policy of the "
            "key or of the role has to allow it."
        )
    for codes, kind, text in _PLAIN:
        if code in codes:
            return kind(f"{text} ({named}).")
    if status >= 500:
        return BackendUnavailable(f"AWS reports trouble of its own ({named}).")
    if status in (401, 403):
        return BackendRefused(f"AWS refuses the console's credential ({named}).")
    return BackendError(f"AWS KMS refused {error.operation_name} ({named}).")


_PLAIN: tuple[tuple[frozenset[str], type[KeyServiceError], str], ...] = (
    (_GONE, NoMaterial, "AWS KMS has no such key"),
    (_STATE, StateForbids, "AWS KMS itself refuses: the key is not enabled there"),
    (_CIPHERTEXT, CannotDecrypt, CannotDecrypt.title),
    (_CANNOT, Unsupported, "AWS KMS can't do that with this key"),
    (_NO_ACTION, NoSuchAction, "The server has no such action"),
    (_AWAY, BackendUnavailable, "AWS KMS can't do it now"),
    # A rotation of AWS's own is under way, or begins within 20 minutes (RotateKeyOnDemand).
    (frozenset({"ConflictException"}), StillWaiting, "AWS KMS is rotating the key by itself"),
    (frozenset({"AlreadyExistsException"}), Conflict, "AWS KMS has it already"),
    (frozenset({"LimitExceededException"}), BackendError, "A quota of the AWS account is reached"),
    (
        frozenset({"IncorrectKeyMaterialException"}),
        Conflict,
        "There was other material under this key before, and AWS KMS takes no other",
    ),
)


def _error(error: sdk.ClientError) -> Mapping[str, Any]:
    found = error.response.get("Error")
    return found if isinstance(found, dict) else {}


def _metadata(error: sdk.ClientError) -> Mapping[str, Any]:
    found = error.response.get("ResponseMetadata")
    return found if isinstance(found, dict) else {}


def _status(error: sdk.ClientError) -> int:
    status = _metadata(error).get("HTTPStatusCode")
    return status if isinstance(status, int) else 0


def _retry_after(error: sdk.ClientError) -> float | None:
    headers = _metadata(error).get("HTTPHeaders")
    written = headers.get("retry-after", "") if isinstance(headers, dict) else ""
    try:
        seconds = float(written)
    except ValueError:
        return None  # a date, or nothing
    return seconds if 0 <= seconds < 86_400 else None
