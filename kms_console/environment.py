"""Settings from the environment: `NAME`, or `NAME_FILE` for what no process list should show."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off"}

# What fits into sockaddr_un.sun_path with its closing zero byte: 108 bytes on Linux, 104 elsewhere.
SOCKET_PATH_LIMIT = 107 if sys.platform == "linux" else 103


def text(name: str, default: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Return `NAME`, else the content of the file that `NAME_FILE` names, else `default`.

    Raises ImproperlyConfigured where both are set, the file can't be read, or nothing is set
    and there is no default.
    """
    value, path = environ.get(name), environ.get(f"{name}_FILE")
    if value is not None and path is not None:
        raise ImproperlyConfigured(f"Set {name} or {name}_FILE, not both.")
    if value is not None:
        return value
    if path is not None:
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(
                f"{name}_FILE: can't read {path}: {error.strerror}"
            ) from None
    if default is None:
        raise ImproperlyConfigured(f"{name} is not set (nor is {name}_FILE).")
    return default


def flag(name: str, default: bool, environ: Mapping[str, str] = os.environ) -> bool:
    """Return a yes-or-no setting. Raises ImproperlyConfigured for any other word."""
    word = text(name, "true" if default else "false", environ).lower()
    if word not in TRUE | FALSE:
        raise ImproperlyConfigured(f"{name} must be yes or no, not {word!r}.")
    return word in TRUE


def number(
    name: str, default: int, minimum: int = 0, environ: Mapping[str, str] = os.environ
) -> int:
    """Return a whole number. Raises ImproperlyConfigured for anything else or below `minimum`."""
    word = text(name, str(default), environ)
    try:
        value = int(word)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {word!r}.") from None
    if value < minimum:
        raise ImproperlyConfigured(f"{name} must be at least {minimum}, not {value}.")
    return value


def words(name: str, default: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return a comma-separated list, without blanks."""
    return [word.strip() for word in text(name, default, environ).split(",") if word.strip()]


def broker_socket(data: Path) -> Path:
    """Return where the embedded broker of the data folder `data` listens.

    That is `run/broker.sock` inside it or, where the system takes no path of that length, a short
    folder of this user under the temporary folder. Every process derives the same path.
    """
    inside = data / "run" / "broker.sock"
    if len(os.fsencode(inside)) <= SOCKET_PATH_LIMIT:
        return inside
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"kms-console-{os.getuid()}-{name}" / "broker.sock"


def private_folder(path: Path) -> None:
    """Make `path` a folder that only this user can enter.

    Raises ImproperlyConfigured where it is somebody else's, a link, or open to others: in a shared
    temporary folder anybody could have made it before us.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ImproperlyConfigured(f"{path} must be a folder of yours with mode 0700: remove it.")


def broker_url(data: Path) -> str:
    """Return the address of the embedded broker of the data folder `data`, as Celery writes it."""
    return f"redis+socket://{quote(str(broker_socket(data)))}"
