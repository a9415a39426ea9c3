"""Command. `receiver refund`: read, create, retry, watch, export and import refunds."""
