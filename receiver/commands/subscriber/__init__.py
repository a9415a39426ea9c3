"""Command. `receiver subscriber`: subscribers and their deliveries."""
