"""Pure. Signed requests to Amazon, and the meaning of its answers and notifications."""
