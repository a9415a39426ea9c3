"""Verb. Owed events → subscribers."""
