"""The key broker: decides again before a key leaves the KMS."""
