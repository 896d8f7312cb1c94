"""The worked example: a healthcare company whose keys are in every state that there is.

    company     who works there, which keys and applications it has: plain data
    accounts    the passwords and tokens of this data folder, in a file of mode 0600
    story       how the company came to be, through the same functions as everything else

It can be cut off at any point and started again: every step looks first whether it was done.
"""

from __future__ import annotations

from kms_console.demo.accounts import Accounts
from kms_console.demo.story import load

__all__ = ["Accounts", "load"]
