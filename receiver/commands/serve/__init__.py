"""Command. `receiver serve`: one process, or several."""
