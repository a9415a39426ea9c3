"""Pure. Refunds, refund requests, charges and disputes: the values, and the decisions about them."""
