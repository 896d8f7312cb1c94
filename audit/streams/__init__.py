"""Live streams of entries to SIEMs: syslog over TLS and webhooks, at least once, in order.

settings.AUDIT_STREAMS names them; see docs/audit/streams.md.
"""

from audit.streams.delivery import deliver_all
from audit.streams.state import reached, trouble

__all__ = ["deliver_all", "reached", "trouble"]
