"""The SDK's clients of one key store, and one way to call them.

The SDK repeats nothing on its own (keys.backends.bounded does), and waits at most 5 seconds for a
connection and 15 for an answer. Clients are shared by all threads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from keys.backends.aws.configuration import AccessKey, Configuration
from keys.backends.aws.failures import translated
from keys.errors import BackendError, Invalid, KeyServiceError

CONNECT_SECONDS, READ_SECONDS = 5, 15
# A role's credentials are fetched again this long before they end.
_EARLY = timedelta(minutes=5)

# At the level DEBUG the SDK writes requests and answers with all that is in them, plaintexts too.
for _name in ("boto3", "botocore"):
    logging.getLogger(_name).setLevel(logging.INFO)

# The SDK's descriptions of AWS's services, a few megabytes: read once in a process.
_LOADER = botocore.session.get_session().get_component("data_loader")

Answer = Mapping[str, Any]


class Connection:
    """Clients for AWS KMS and the tagging API; made on first use, again when a role's time is over."""

    def __init__(self, configuration: Configuration, key: AccessKey | None) -> None:
        if key is not None and configuration.profile:
            raise Invalid("Give a profile or an access key, not both.")
        self.configuration = configuration
        self._key = key
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._until: datetime | None = None
        self._session: Any = None

    def kms(self, action: str, **parameters: Any) -> Answer:
        """Call an action of AWS KMS by its name in the SDK (describe_key).

        Raises as keys.backends.aws.failures.translated() says.
        """
        return self._call("kms", action, parameters)

    def tagging(self, action: str, **parameters: Any) -> Answer:
        """Call an action of the Resource Groups Tagging API."""
        return self._call("resourcegroupstaggingapi", action, parameters)

    def raw_kms(self, action: str, **parameters: Any) -> Answer:
        """Call an action of AWS KMS; an error that AWS answered with is raised as it came."""
        client = self._client("kms")
        try:
            return _answer(getattr(client, action)(**parameters))
        except ClientError:
            raise
        except Exception as error:
            raise _wrapped(error) from None

    def close(self) -> None:
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def _call(self, service: str, action: str, parameters: Mapping[str, Any]) -> Answer:
        client = self._client(service)
        try:
            return _answer(getattr(client, action)(**parameters))
        except Exception as error:
            # The SDK reads a broken answer with all of Python's errors; none of them may pass.
            raise _wrapped(error) from None

    def _client(self, service: str) -> Any:
        with self._lock:
            if self._until is not None and datetime.now(UTC) >= self._until - _EARLY:
                self._clients, self._session, self._until = {}, None, None
            client = self._clients.get(service)
            if client is None:
                try:
                    client = self._made(service)
                except Exception as error:
                    raise _wrapped(error) from None
                self._clients[service] = client
            return client

    def _made(self, service: str) -> Any:
        # A session isn't safe to share while it makes clients; the lock is held here.
        if self._session is None:
            session = self._own_session()
            role = self.configuration.role_arn
            self._session = self._assumed(session, role) if role else session
        return self._client_of(self._session, service)

    def _own_session(self) -> Any:
        if self._key is None:
            return self._session_with(profile_name=self.configuration.profile or None)
        token = self._key.session_token
        return self._session_with(
            aws_access_key_id=self._key.access_key_id,
            aws_secret_access_key=self._key.secret_access_key.reveal().decode(),
            aws_session_token=token.reveal().decode() if token else None,
        )

    def _session_with(self, **credential: str | None) -> Any:
        core = botocore.session.get_session()
        core.register_component("data_loader", _LOADER)
        # Requests go where the settings say. An AWS_ENDPOINT_URL of the environment or of a profile
        # would send them elsewhere, in the clear too; the SDK's own look-ups of a role included.
        core.set_config_variable("ignore_configured_endpoint_urls", True)
        return boto3.session.Session(
            **credential, region_name=self.configuration.region, botocore_session=core
        )

    def _client_of(self, session: Any, service: str) -> Any:
        # A VPC endpoint of AWS KMS speaks for AWS KMS only, a test server for all of AWS.
        here = self.configuration.on_this_machine
        chosen = service == "kms" or here
        return session.client(
            service,
            endpoint_url=(self.configuration.endpoint or None) if chosen else None,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=16,
                user_agent_extra="kms-console",
                ignore_configured_endpoint_urls=True,
                # What is on this machine is reached without a proxy, whatever the environment says.
                proxies={} if here else None,
            ),
        )

    def _assumed(self, session: Any, role: str) -> Any:
        """Return a session in a role (AssumeRole of AWS STS), for an hour."""
        sts = self._client_of(session, "sts")
        try:
            answer = sts.assume_role(RoleArn=role, RoleSessionName="kms-console")
        finally:
            sts.close()
        given = member(answer, "Credentials", dict)
        self._until = member(given, "Expiration", datetime)
        return self._session_with(
            aws_access_key_id=member(given, "AccessKeyId", str),
            aws_secret_access_key=member(given, "SecretAccessKey", str),
            aws_session_token=member(given, "SessionToken", str),
        )


def member(answer: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a member of an answer that has to be there. Raises BackendError where it isn't."""
    value = answer.get(name)
    if not isinstance(value, kind):
        raise BackendError(f"The answer of AWS has no usable {name}.")
    return value


def members(answer: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return a list of structures in an answer. Raises BackendError where it is something else."""
    rows = member(answer, name, list)
    if not all(isinstance(row, dict) for row in rows):
        raise BackendError(f"The answer of AWS has no usable {name}.")
    return list(rows)


def moment(value: object) -> datetime | None:
    """Return a date of an answer in UTC, None where there is none."""
    return value.astimezone(UTC) if isinstance(value, datetime) else None


def _answer(answer: object) -> Answer:
    if not isinstance(answer, dict):
        raise BackendError("The answer of AWS makes no sense.")
    return answer


def _wrapped(error: Exception) -> KeyServiceError:
    if isinstance(error, KeyServiceError):
        return error
    if isinstance(error, BotoCoreError | ClientError):
        return translated(error)
    return BackendError(f"The answer of AWS can't be read ({type(error).__name__}).")
