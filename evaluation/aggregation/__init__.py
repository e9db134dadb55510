"""Is learned pooling worth it? Every aggregator on the same embeddings, and some end to end."""
