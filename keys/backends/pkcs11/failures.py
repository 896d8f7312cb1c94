"""What a token's errors mean: connect anew, look the key up again, or tell the caller."""

from __future__ import annotations

import pkcs11

from keys.errors import (
    BackendError,
    BackendUnavailable,
    Invalid,
    KeyServiceError,
    StateForbids,
    Unsupported,
)

# The session or the token went away: everything found so far is void.
LOST: tuple[type[pkcs11.PKCS11Error], ...] = (
    pkcs11.SessionHandleInvalid,
    pkcs11.SessionClosed,
    pkcs11.DeviceRemoved,
    pkcs11.DeviceError,
    pkcs11.TokenNotPresent,
    pkcs11.TokenNotRecognised,
    pkcs11.UserNotLoggedIn,
    pkcs11.SlotIDInvalid,
)
# The object was destroyed, or its handle is one of an earlier connection.
STALE: tuple[type[pkcs11.PKCS11Error], ...] = (
    pkcs11.ObjectHandleInvalid,
    pkcs11.KeyHandleInvalid,
)
_PIN: tuple[type[pkcs11.PKCS11Error], ...] = (
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinExpired,
    pkcs11.PinLocked,
    pkcs11.UserPinNotInitialized,
)
# python-pkcs11 has no class for these two; their texts are all there is to tell them by.
_NOT_INITIALIZED = "not initialized"
_NOT_PERMITTED = "0x68"  # CKR_KEY_FUNCTION_NOT_PERMITTED


class PinRefused(BackendUnavailable):
    """The token refused the PIN. It is not tried again: a few wrong ones lock a token."""


class LeftBehind(pkcs11.SessionClosed):  # type: ignore[misc,unused-ignore]
    """A session object with somebody's key in it can't be destroyed: only closing the sessions will."""


def is_not_initialized(error: pkcs11.PKCS11Error) -> bool:
    """Whether somebody in this process called C_Finalize."""
    return type(error) is pkcs11.PKCS11Error and _NOT_INITIALIZED in str(error)


def is_lost(error: pkcs11.PKCS11Error) -> bool:
    return isinstance(error, LOST) or is_not_initialized(error)


def translated(error: pkcs11.PKCS11Error) -> KeyServiceError:
    """Return the error to raise instead. It tells the class's name, never what the token wrote."""
    name = type(error).__name__
    if isinstance(error, _PIN):
        return PinRefused(f"The token refused the PIN ({name}).")
    if isinstance(error, pkcs11.DeviceMemory | pkcs11.HostMemory | pkcs11.SessionCount):
        return BackendUnavailable(f"The token has no room left ({name}).")
    if isinstance(error, pkcs11.NoSuchToken):
        return BackendUnavailable("No token with this label or serial number is present.")
    if isinstance(error, pkcs11.MultipleTokensReturned):
        return Invalid("More than one token has this label; name it by its serial number.")
    if isinstance(
        error, pkcs11.MechanismInvalid | pkcs11.MechanismParamInvalid | pkcs11.FunctionNotSupported
    ):
        return Unsupported(f"The token can't do that ({name}).")
    if type(error) is pkcs11.PKCS11Error and _NOT_PERMITTED in str(error):
        return forbidden()
    if is_lost(error):
        return BackendUnavailable(f"The token went away ({name}).")
    return BackendError(f"The token reported an error ({name}).")


def forbidden() -> StateForbids:
    return StateForbids(
        "The token itself refuses this use: the key is suspended or deactivated there."
    )
