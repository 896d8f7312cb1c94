"""A witness: it remembers what it saw of a log, and signs only what grew from that."""
