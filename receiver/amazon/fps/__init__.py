"""Pure. The legacy Flexible Payments Service: its requests, answers, notifications and signatures."""
