"""Taking entries out: as files that can be taken up again, and as evidence with its proofs."""
