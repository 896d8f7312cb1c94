"""Servers that key stores are tested against, started by the tests themselves on loopback."""
