"""The audit log, pure: entries, the Merkle tree, signed checkpoints, proofs and their verification.

A log is an append-only list of entries. An entry is one RFC 8785 JSON text (`entries`). The entries are the leaves of
an RFC 6962 Merkle tree (`merkle`), stored as C2SP tiles (`tiles`). A checkpoint is a signed note with the size and the
root of the tree (`checkpoint`, `notes`). A proof connects one entry to one checkpoint (`proof`). `verify` recomputes
all of it. Writers, storage and witnesses are in `webhook.audit`.
"""
