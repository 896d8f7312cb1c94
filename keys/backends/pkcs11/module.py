"""Loading a vendor's PKCS#11 library, the way threads and forks need it.

Traps, each seen to hang, crash or mislead:
- python-pkcs11 calls C_Initialize(NULL), which promises the library that one thread uses it, and
  then calls it from many. We initialise it ourselves, with CKF_OS_LOCKING_OK.
- A library that was loaded before a fork may hang in the child. It is loaded on first use, and a
  process that was forked from one that had loaded it refuses.
- python-pkcs11 has no C_GetSessionInfo, without which an empty search can mean 'no such key' as
  well as 'not logged in'. We call it ourselves.
- Its Session.close() logs out all sessions of the process. We close sessions ourselves, too.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Any

import pkcs11

from keys.errors import BackendUnavailable

CKF_OS_LOCKING_OK = 2
CKR_OK = 0
CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191
CK_UNAVAILABLE_INFORMATION = ctypes.c_ulong(-1).value

# Session states in which private objects can be seen (PKCS#11 2.40, 5.6).
_USER_STATES = frozenset({1, 3})  # read-only user functions, read-write user functions

# Places in CK_FUNCTION_LIST, after its version.
_INITIALIZE, _TOKEN_INFO, _CLOSE_SESSION, _SESSION_INFO = 0, 6, 13, 15


class _InitializeArguments(ctypes.Structure):
    _fields_ = [
        ("create_mutex", ctypes.c_void_p),
        ("destroy_mutex", ctypes.c_void_p),
        ("lock_mutex", ctypes.c_void_p),
        ("unlock_mutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    ]


class _FunctionList(ctypes.Structure):
    _fields_ = [("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * 68)]


class _SessionInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulong) for name in ("slot", "state", "flags", "device_error")]


class _TokenInfo(ctypes.Structure):
    _fields_ = [
        ("names", ctypes.c_char * 96),
        ("flags", ctypes.c_ulong),
        ("limits", ctypes.c_ulong * 6),
        ("total_public", ctypes.c_ulong),
        ("free_public", ctypes.c_ulong),
        ("total_private", ctypes.c_ulong),
        ("free_private", ctypes.c_ulong),
        ("rest", ctypes.c_ubyte * 20),
    ]


class Module:
    """A library, loaded and initialised in this process. Made by open_module() only."""

    def __init__(self, path: str) -> None:
        from pkcs11 import _pkcs11  # here, so that importing this file loads nothing

        library = ctypes.CDLL(path)
        found = ctypes.POINTER(_FunctionList)()
        if library.C_GetFunctionList(ctypes.byref(found)) != CKR_OK:
            raise OSError("C_GetFunctionList failed")
        self._functions = found.contents.functions
        module = self

        class Library(_pkcs11.lib):  # type: ignore[misc,unused-ignore]
            def initialize(self) -> None:
                module.initialize()

        self.lib: Any = Library(path)

    def initialize(self) -> None:
        """Call C_Initialize with locking; 'already initialised' is as good."""
        arguments = _InitializeArguments(flags=CKF_OS_LOCKING_OK)
        result = self._call(_INITIALIZE, ctypes.byref(arguments))
        if result not in (CKR_OK, CKR_CRYPTOKI_ALREADY_INITIALIZED):
            raise OSError(f"C_Initialize answered {result:#x}")

    def is_logged_in(self, session: Any) -> bool:
        """Whether `session` is alive and sees private objects."""
        info = _SessionInfo()
        result = self._call(_SESSION_INFO, ctypes.c_ulong(int(session.handle)), ctypes.byref(info))
        return result == CKR_OK and info.state in _USER_STATES

    def close_session(self, session: Any) -> None:
        """Close a session and nothing more.

        python-pkcs11's close() of a session that brought the PIN logs out the whole process, under
        threads that are using the token. Without that, the token logs out with its last session.
        """
        self._call(_CLOSE_SESSION, ctypes.c_ulong(int(session.handle)))

    def free_memory(self, slot: int) -> int | None:
        """Return the bytes left for private objects, or None where the token doesn't say."""
        info = _TokenInfo()
        result = self._call(_TOKEN_INFO, ctypes.c_ulong(slot), ctypes.byref(info))
        if result != CKR_OK or info.free_private == CK_UNAVAILABLE_INFORMATION:
            return None
        return int(info.free_private)

    def _call(self, place: int, *arguments: Any) -> int:
        function = ctypes.CFUNCTYPE(ctypes.c_ulong)(self._functions[place])
        return int(function(*arguments))


_modules: dict[str, Module] = {}
_loaded_by: int | None = None
_lock = threading.Lock()


def open_module(path: str) -> Module:
    """Return the library at `path`, loaded once per process. Raises BackendUnavailable."""
    global _loaded_by
    if _loaded_by not in (None, os.getpid()):
        raise BackendUnavailable(
            "This process was forked from one that had loaded the PKCS#11 module; it can't use it."
        )
    with _lock:
        found = _modules.get(path)
        if found is not None:
            return found
        if not Path(path).is_file():
            raise BackendUnavailable(f"There is no PKCS#11 module at {path}.")
        _loaded_by = os.getpid()
        try:
            module = Module(path)
        except (OSError, AttributeError, pkcs11.PKCS11Error):
            raise BackendUnavailable(f"The PKCS#11 module at {path} can't be loaded.") from None
        _modules[path] = module
        return module
