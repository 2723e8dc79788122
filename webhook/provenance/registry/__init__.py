"""Read OCI registries and layouts: manifests, blobs and referrers, all bounded and all verified by digest."""
