"""Edge: Redis. Refunds and their schedule."""
