"""Edge: notifications. What the simulator posts: genuine, forged and misdelivered."""
