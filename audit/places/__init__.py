"""Places outside the database: a folder, an S3-compatible bucket, a webhook."""
