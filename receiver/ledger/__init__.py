"""Pure. What we know: refunds, their lifecycle, hints and lists."""
