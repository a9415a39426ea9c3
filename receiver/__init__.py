"""Refunds of Amazon Pay."""
