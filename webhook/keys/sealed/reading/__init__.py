"""Reading of sealed files, without writing them in plaintext."""
