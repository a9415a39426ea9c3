"""Verb. Notifications → hints."""
