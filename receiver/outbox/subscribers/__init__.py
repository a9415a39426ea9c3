"""Pure. Subscribers: what they want, and where to send it."""
