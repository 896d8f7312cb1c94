"""Entries in the forms of other systems."""
