"""The resource types Weightlock reads and writes, and its configuration: data and validation, nothing else."""
