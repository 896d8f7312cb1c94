"""From bytes to checked values and back; no HTTP in here."""
