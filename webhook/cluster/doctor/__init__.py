"""``weightlock doctor``: looks at a cluster from outside, as an admin, and says what is wrong and how to mend it.

It reads, and creates dry-run objects only: nothing it does stays.
"""
