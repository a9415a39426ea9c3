"""Edge: Redis. Events and their delivery."""
