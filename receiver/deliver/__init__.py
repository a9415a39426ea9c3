"""Verb. Events that are owed → subscribers."""
