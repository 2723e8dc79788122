"""``weightlock doctor``: diagnose an installation from outside, as an admin, and suggest fixes.

It reads objects and creates objects by dry run only. It changes nothing.
"""
