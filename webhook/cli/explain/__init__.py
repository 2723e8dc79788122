"""The command that explains verdicts, reason codes and kinds."""
