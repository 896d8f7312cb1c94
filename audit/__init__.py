"""THE RECORD: a Merkle log of every use, change, denial and failure. It knows no keys."""
