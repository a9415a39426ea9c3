"""Edge: the web. The HTTP client and its guards."""
