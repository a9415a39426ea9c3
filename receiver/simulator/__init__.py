"""A stand-in Amazon Pay to develop against: it answers the API, checks our signatures, and posts signed
notifications.

Read in this order:

    app.py             Simulator: everything together, on a socket
    outcomes.py        what happens to a refund, and how to choose it: the table for users
    refusals.py        how requests are refused: the table for the trick `refuse`
    control.py         the HTTP control API under /simulator
    api.py             Create Refund and the Get calls · checks.py verifies request signatures · shapes.py JSON
    bank.py            the books and Amazon's rules · disputes.py · amounts.py · throttle.py · ids.py · faults.py
    keys.py            the keys · keyring.py keeps them in a folder
    engine.py          holds everything, and advances time
    notifications/     notices.py messages and signed envelopes · forgeries.py · announce.py turns changes into
                       notifications · sender.py posts them as SNS does
                       fault_injection.py what can go wrong on demand: the table for users
    fps/               the retired Flexible Payments: its API, signatures and books

Nothing here uses the service's own signing and verifying code: this is an independent second implementation.
"""
