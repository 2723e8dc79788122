"""Keys: sealed files, key management, the broker that decides again and the agent that delivers."""
