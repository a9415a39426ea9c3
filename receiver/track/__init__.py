"""Verb. Polls Amazon for due refunds, and records the changes with their events."""
