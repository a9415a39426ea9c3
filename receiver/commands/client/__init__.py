"""Command. What all commands that call the service share: options, messages, exit codes."""
