"""Which entries hold which words: built beside the log, so that appending pays nothing for it."""
