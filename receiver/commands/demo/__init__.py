"""Command. `receiver demo`: the whole service against a simulated Amazon."""
