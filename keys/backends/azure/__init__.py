"""Azure Key Vault and Managed HSM, by Azure's own SDK.

configuration: settings; connection: the SDK's client, one attempt a call; failures: what its errors
mean; offers, forms: key types, algorithms and encodings; naming: names, handles and tags; keyring:
keys and versions; states: the console's states as Azure's attributes; rotation: Azure's own;
destruction: delete, purge, recover; alignment: a key brought in line; listing: views; acts: uses;
backend: all of it as the contract wants it.
"""

from __future__ import annotations
