"""A server of OURS that speaks the REST API of Azure Key Vault. It is nobody's product.

Written from Azure's published REST reference (keys, API versions 7.4 to 7.6 and 2025-07-01), since
the double that others wrote, Lowkey Vault, can't be had from the registries that this project
builds from. What the reference does not say is marked "assumed" where it stands.

It runs as a process of its own (`python -m tests.peers.azure_server`), with nothing but the standard
library and pyca/cryptography: a directory, which gives tokens for a client secret and opens vaults,
and any number of vaults, each on a port of its own. Keys are real and live in memory. What is not
there: certificates and secrets, backup and restore, release, access policies.
"""

from __future__ import annotations
