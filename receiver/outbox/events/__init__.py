"""Pure. Events: what happened, and what to do about it."""
