"""HTTP. Routes, tokens, and the one place where errors become responses."""
