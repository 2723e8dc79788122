"""``weightlock report``."""
