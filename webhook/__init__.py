"""Weightlock: admission control for model weights and accelerators."""
