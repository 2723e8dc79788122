"""A real node on this machine, without Docker: kubelet, containerd, pods that run.

`outside` starts it and speaks to it, `keeper` holds its namespaces and removes everything, `inside` runs in them.
"""
