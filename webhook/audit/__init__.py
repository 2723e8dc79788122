"""The audit log's I/O: storage, keys, the writer, witnesses, the search index and exports.

`webhook.core.audit` decides what the files contain. This package reads and writes them, and never on the event loop.
"""
