"""Pure. Events, subscribers, message formats, and the retry policy of deliveries."""
