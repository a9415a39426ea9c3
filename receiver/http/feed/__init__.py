"""HTTP. The feed of events: polling and Server-Sent Events."""
