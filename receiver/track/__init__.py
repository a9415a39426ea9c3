"""Verb. Due refunds → the ledger."""
