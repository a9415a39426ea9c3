"""Edge: Redis. Data versions, pruning, inspection and repair."""
