"""Verb. What is due → the ledger."""
