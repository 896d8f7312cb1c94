"""Key pairs and what is done with them in this process, by libraries: no store, no database.

Every backend uses it for public keys and for strict imports; the software key store for the rest.
"""
