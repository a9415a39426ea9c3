"""Edge: the process. Logs, metrics, worker loops and the server."""
