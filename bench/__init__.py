"""What the house costs: `python -m bench`, `make bench`. One module a subject, see README.md."""
