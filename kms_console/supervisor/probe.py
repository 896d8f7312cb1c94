"""Ask a KMS Console whether it is ready; also `python -m kms_console.supervisor.probe URL`."""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kms_console import environment

ANSWER_LIMIT = 64 * 1024
TIMEOUT = 5.0  # seconds; every part that /readyz looks at is bounded by 2


@dataclass(frozen=True)
class Readiness:
    """An answer of /readyz: its HTTP status (0 where there was none) and the parts."""

    http_status: int
    status: str
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Name the parts that aren't ready, in one line."""
        wrong = [
            f"{name}: {part.get('reason', part.get('status'))}"
            for name, part in self.parts.items()
            if part.get("status") != "ok"
        ]
        return "; ".join(wrong) or f"web: {self.status}"


def allowed_host(environ: Mapping[str, str] = os.environ) -> str:
    """Return a Host header that the site's ALLOWED_HOSTS lets through."""
    names = environment.words("ALLOWED_HOSTS", "localhost", environ)
    return next((name.lstrip(".") for name in names if name != "*"), "localhost")


def readiness(address: str, environ: Mapping[str, str] = os.environ) -> Readiness:
    """Return what `address`/readyz answers. Nothing is raised where it doesn't."""
    url = urlsplit(address)
    status = 0
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=TIMEOUT)
    try:
        # No library that would look at proxy variables: this stays on the machine.
        connection.request("GET", "/readyz", headers={"Host": allowed_host(environ)})
        answer = connection.getresponse()
        status = answer.status
        document = json.loads(answer.read(ANSWER_LIMIT))
        return Readiness(answer.status, str(document["status"]), dict(document["parts"]))
    except OSError as error:
        return Readiness(0, f"no answer ({error.strerror or error})")
    except (http.client.HTTPException, ValueError, KeyError, TypeError):
        return Readiness(status, f"an answer with status {status} that isn't a readiness document")
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    """Print the answer and return 0 where a request can be served, be it degraded."""
    answer = readiness(arguments[0] if arguments else "http://127.0.0.1:8000")
    print(answer.status if answer.status == "ok" else f"{answer.status}: {answer.reason}")  # noqa: T201
    return 0 if answer.http_status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
