"""AWS KMS: keys in one account and region. The backend is in backend.py."""
