"""Training methods: what one step does."""
