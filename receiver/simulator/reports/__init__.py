"""HTTP. The Reports API of the simulated Amazon Pay, from its own refunds."""
