"""Command. `receiver fps`: refunds of the legacy Flexible Payments Service."""
