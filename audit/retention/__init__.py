"""Archiving entries to storage outside, dropping them, bringing them back."""
