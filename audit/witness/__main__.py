"""`python -m audit.witness`: the witness on a machine that has no console."""

from __future__ import annotations

import sys

from audit.witness.command import main

if __name__ == "__main__":
    sys.exit(main())
