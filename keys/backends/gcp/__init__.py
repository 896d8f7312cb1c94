"""Google Cloud KMS: one CryptoKey for each key of the console, one CryptoKeyVersion for each version.

configuration: settings; connection: channel, credential, errors; forms: Google's algorithms in the
console's words; keyring: what is there; making: new versions; states: views, and bringing Google in
line; acts: uses; backend: the contract.
"""
