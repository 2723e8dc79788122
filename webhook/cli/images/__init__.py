"""Commands that verify images."""
