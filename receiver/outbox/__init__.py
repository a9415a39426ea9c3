"""Pure. What we owe subscribers: events, who wants them, how they look, what an answer means."""
