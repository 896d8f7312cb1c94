"""Drift: what the console believes of a key, what its store says, and where the two differ.

beliefs: rows to a KeyView; comparing: two views to differences; looking: ask a store, and write down
what differs. What is done about a difference is in keys.administration.drift.
"""
