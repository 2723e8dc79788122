"""Commands for model weights."""
