"""Edge: Redis. Connections, keys and scripts."""
