"""Pure. Many declines with one cause."""
