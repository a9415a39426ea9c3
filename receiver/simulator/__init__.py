"""A stand-in Amazon Pay to develop against: answers the API, checks our signatures, signs and posts notifications.

Read in this order:

    app.py          Simulator: everything together, on a socket
    outcomes.py     what becomes of a refund, and how to choose it: the table for users
    fault_injection.py what can go wrong on demand: the table for users
    refusals.py     how requests are refused: the table for the trick `refuse`
    control.py      the HTTP control API under /simulator
    api.py          Create Refund, Get Refund, Get Charge · checks.py verifies request signatures · shapes.py JSON
    bank.py         the books and Amazon's rules · amounts.py · throttle.py · ids.py · faults.py
    notices.py      messages and signed envelopes · forgeries.py those not to believe · keys.py, keyring.py
    announce.py     a change becomes a notification · post.py posts it as SNS does
    fps.py          the retired Flexible Payments · fps_checks.py verifies signatures · fps_book.py its books and forms
    engine.py       holds it all, and lets time pass

Nothing here uses the service's own signing and verifying code: it is the independent second implementation.
"""
