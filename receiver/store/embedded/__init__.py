"""Edge: processes. The embedded Valkey."""
