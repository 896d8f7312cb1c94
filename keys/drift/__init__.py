"""Drift: what the console believes of a key, what its store says, and where the two differ.

beliefs: rows to a KeyView; plain: a KeyView to JSON and back; comparing: two views to differences;
looking: ask a store; noting: write down what differs; ways: what can be done about a difference;
following: let the console's rows say what the store says. Who may do that, and with whose votes, is
in keys.administration.drift.
"""
