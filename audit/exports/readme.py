"""What the evidence says of itself to whoever opens it."""

from __future__ import annotations

_TEXT = """\
EVIDENCE FROM THE AUDIT TRAIL OF A KEY CONSOLE

How to check it, on a machine of your own, without trusting the console:

1. Have Python 3.9 or newer with the package "cryptography" (pip install cryptography).
2. Take verify.py and the log's keys from where you trust them: whoever forges evidence can forge
   the ones in here with it.
3. Leave it packed, and run:  python -I verify.py EVIDENCE.zip --keys KEYS-THAT-YOU-NOTED.txt
   (without keys of yours it ends with 2; --trust-enclosed-keys takes those in here)
   with  --previous CHECKPOINT  where you kept one, of which this log must be the continuation.
4. It says what it found. Exit code 0: sound; 1: not sound; 2: something could not be checked.
5. Keep the file "checkpoint": next year's evidence must prove that this log is its beginning.

entries.jsonl      the entries, one a line, byte for byte as they were hashed
{entries}
checkpoint         the log's size and root, signed by the log and its witnesses (C2SP signed note)
consistency.jsonl  earlier checkpoints, and proofs that their logs are the beginning of this one
personal.jsonl     the values behind commitments to personal data, where they were not erased
keys.txt           the public keys that signatures are checked with
policy.txt         which witnesses must have signed, where there is such a policy
manifest.json      what was asked for, and how many entries it is

Entries that came after the checkpoint are not in here; a later export has them.
"""
_WHOLE = "                   (all of them, so that the root follows from them and needs no proofs)"
_SOME = (
    "proofs.jsonl       for each entry the proof that it stands in the checkpoint's log (RFC 9162)"
)


def text(whole: bool) -> str:
    """Return README.txt, of an export of the whole log or of some entries."""
    return _TEXT.format(entries=_WHOLE if whole else _SOME)
