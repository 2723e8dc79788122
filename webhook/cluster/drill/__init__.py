"""Run a drill on a live cluster: read its contents, set up, attack by dry run, and clean up."""
