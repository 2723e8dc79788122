"""The one CEL engine that decides."""
