"""The controller: what must be done in a cluster besides answering reviews. One replica acts, the others
wait.
"""
