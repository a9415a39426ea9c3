"""HTTP. The simulated Flexible Payments Service."""
