"""Pure. The formats in which events are sent."""
