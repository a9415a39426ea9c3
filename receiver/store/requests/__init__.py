"""Edge: Redis. Refund requests, reservations and charges."""
