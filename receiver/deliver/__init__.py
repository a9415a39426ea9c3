"""Verb. Sends events to subscribers."""
