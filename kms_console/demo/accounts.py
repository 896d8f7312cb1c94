"""The worked example's passwords and tokens: made for each data folder, kept in files of mode 0600."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from kms_console.demo.company import APPLICATIONS, COMPANY, PEOPLE

# No letter or digit that could be taken for another; 16 of them have 78 bits.
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


def accounts_file() -> Path:
    """Return where the accounts are kept."""
    return Path(settings.SECRETS_DIR) / "demo-accounts.json"


def token_file(application: str) -> Path:
    """Return where one application's token is kept alone, for a command line to read it from."""
    return Path(settings.SECRETS_DIR) / "demo-tokens" / application


@dataclass(slots=True)
class Accounts:
    """Who can sign in with what. `loaded_at` is empty until the example is complete."""

    passwords: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict)
    loaded_at: str = ""

    @classmethod
    def read(cls) -> Accounts | None:
        """Return this data folder's accounts, or None where there are none yet."""
        try:
            kept = json.loads(accounts_file().read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(
            {person["username"]: person["password"] for person in kept["people"]},
            {app["name"]: app["token"] for app in kept["applications"] if app["token"]},
            kept["loaded_at"],
        )

    @classmethod
    def new(cls) -> Accounts:
        """Return accounts with fresh passwords, kept before anybody depends on them."""
        made = cls({person.username: _password() for person in PEOPLE})
        made.keep()
        return made

    def keep(self) -> None:
        """Write everything down, each file whole or not at all."""
        _write(accounts_file(), json.dumps(self._document(), indent=2) + "\n")
        for name, token in self.tokens.items():
            _write(token_file(name), token)

    def _document(self) -> dict[str, Any]:
        return {
            "company": COMPANY,
            "loaded_at": self.loaded_at,
            "people": [
                {
                    "name": person.name,
                    "username": person.username,
                    "role": person.role,
                    "password": self.passwords[person.username],
                }
                for person in PEOPLE
            ],
            "applications": [
                {"name": plan.name, "grants": plan.grants, "token": self.tokens.get(plan.name, "")}
                for plan in APPLICATIONS
            ],
        }


def _password() -> str:
    groups = ("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4))
    return "-".join(groups)


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
