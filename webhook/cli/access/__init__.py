"""``weightlock access``."""
