"""Verb. Sends Create Refund for refund requests."""
