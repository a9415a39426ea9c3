"""Command. `receiver events`: follow and forward events."""
