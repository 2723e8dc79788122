"""``weightlock audit``: follow, search, export, verify, prove and serve the audit log."""
