"""The harness of the end-to-end tests: a real Kubernetes control plane, and Weightlock running against it.

Everything listens on 127.0.0.1 only, lives in one temporary directory a cluster, and is stopped by process
id. Tests reach it through the fixtures of tests/e2e/conftest.py.
"""
