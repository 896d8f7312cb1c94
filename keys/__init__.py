"""The domain: keys, who may use them, and their whole life. No HTTP, no HTML."""
