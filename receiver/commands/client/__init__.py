"""Command. How commands call the service's API."""
