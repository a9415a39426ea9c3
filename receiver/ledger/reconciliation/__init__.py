"""Pure. Compares what Amazon's reports say about refunds with what is known here."""
