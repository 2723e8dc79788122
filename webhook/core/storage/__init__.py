"""From the storage a pod or claim names to the protected assets it reaches: backends, clones, snapshots, aliases."""
