"""Pure. Subscribers: their filters, addresses and secrets."""
