"""Entries in the forms that SIEMs read: OCSF and CEF. See docs/audit/ocsf.md and streams.md."""
