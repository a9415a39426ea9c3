"""Verb. Verifies notifications, and stores hints that refunds may have changed."""
