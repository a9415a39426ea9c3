"""Pure. What Amazon's reports say of refunds, compared with what is known here."""
