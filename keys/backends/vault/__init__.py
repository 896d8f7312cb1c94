"""Keys of one transit secrets engine of HashiCorp Vault or OpenBao."""
