"""Verb. Refund requests → Create Refund."""
