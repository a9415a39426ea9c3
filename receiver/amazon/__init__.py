"""Pure. What we ask Amazon: signed requests, and what its answers mean."""
