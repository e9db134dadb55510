"""Training runs: built from a config, stepped, checkpointed."""
