"""The command that reviews manifests offline."""
