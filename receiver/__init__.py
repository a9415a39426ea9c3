"""The map: a reading list. Amazon Pay says that a refund may have changed; this is what becomes of it, in that order.

First: what goes wrong, and what goes over the wire

    errors.py · exchange.py    whose fault, which HTTP status, which stable word; a request and a response as values
    trace_context.py  the `traceparent` of a request, which is passed on

A notification comes in, is proven, and becomes a hint

    inbox/            PURE · what Amazon sends us
        strict_json.py · envelope.py              the POST's body, and the exact text that Amazon signed
        regions.py · certificate.py               which certificates SNS signs with, and where they stand
        signature.py · known_answers.py           may we believe it? address, age, signature
        notice.py · dispute.py · unrecognized.py  the message inside: which refund changed, or what else it names
    accounts.py       whose notifications to believe, whom to ask, how fast
    certificates.py · fetch_queue.py    the signing certificate: at hand, or fetched within bounds
    receive.py        VERB · one POST → proven, and a hint written down
    unrecognized.py   VERB · proven, not understood → kept, and a hint for every refund that it names

A hint makes a refund due; Amazon is asked, and the answer is written with all that follows from it

    amazonpay/        PURE · what we ask Amazon
        calls.py · signing.py · answers.py · fields.py    a request, the proof that it is ours, what an answer means
        clock.py · fps.py · fps_answers.py · fps_notification.py · aws_signature.py    Amazon's time; Flexible Payments
    ledger/           PURE · what we know
        refund.py · hint.py · request.py · dispute.py · receipt.py · notification.py    the values
        lifecycle.py · age.py                     the table: known + seen → change, and its events
        schedule.py                               when to ask again
        query.py · shape.py · request_shape.py · order_reference.py · nesting.py    lists; refunds and requests in JSON
        charge_book.py · retryability.py          each refund of a charge; whether one may be issued again
        allowance.py                              how much may still be refunded on a charge
    store/            Redis; each script is a .lua file beside the module that runs it
        keys.py · codec.py · stream_ids.py · part.py    the catalogue of keys; forms; access
        connection.py · scripts.py · kinds.py · tls.py    pipelines and scripts; what can be the matter
        damage.py · records.py · inspection.py    foreign keys and damaged records: met, looked for, set aside
        sentinel.py · cluster.py · topology.py    one Redis, or several
        clock.py · wakes.py                       one time for all; who wakes whom
        looks.py · refunds.py · roster.py · lanes.py · deaths.py · keeping.py    questions, the ledger, what is owed
        requests.py · unsettled.py · fps_orders.py · disputes.py · known_charges.py    what we issue; charges
        format.py · restored.py · pruning.py      the version of the data; after a restore; what is old goes
        overview.py · trail.py · notifications.py · feed.py · vitals.py    what people look at; all events; Redis itself
        embedded.py · embedded_files.py · embedded_line.py · embedded_process.py    a Valkey of our own
    ask.py · settle.py    one signed exchange with Amazon; read, decide, commit, and again on collision
    current.py · track.py          VERBS · the advice of now; what is due → the ledger
    issue/ · legacy.py                            VERBS · a refund request → Amazon → the ledger (legacy: by FPS)

A change becomes an event, and an event is owed to whoever wants it

    outbox/           PURE · what we owe subscribers
        event.py · advice.py · telling.py · incident.py    what happened, what to do, in words; what begins and ends
        operator_event.py · cursor.py             what befell deliveries; how far somebody has read
        subscriber.py · subscriber_shape.py · filters.py · written.py · target.py · formats.py    who wants what, how
        secret.py · limits.py · rotation.py       what signs, what is too little or too much, how it changes
        rendering.py · cloud_event.py · signature.py · slack.py · pagerduty.py · alertmanager.py    events on the wire
        delivery.py                               what an answer means: delivered, again, given up, gone
    addresses.py · shares.py    which IP addresses are not public; a limit that clients share
    head.py · trouble.py · sendable.py · resolver.py · interim.py · transport.py    all that goes out to the web
    handover.py · telling.py    one message: send, judge, settle; what pauses a subscriber, and who is told
    declare.py · deliver.py · upkeep.py    VERBS · the configured subscribers → the store; lanes → the world; trimming

Around it

    http/             the routes: notifications, refunds, subscribers, feed, dashboard, health; errors become answers
    settings/         every setting, checked as a whole before anything starts
    durations.py · redis_address.py · printable.py · logs.py · metrics.py · serving.py · workers.py · deadline.py
    service.py        builds everything once, by hand, and runs it
    simulator/        a stand-in Amazon Pay; has a reading list of its own, and shares none of the code above
    commands/ · checks/           one module for each group of commands; what `receiver doctor` looks at
    cli.py · __main__.py · healthcheck.py         the command line; what a container asks

Imports go down only, and nothing imports what stands beside it (tests/test_architecture.py):

  │ __main__
  │ cli
  │ commands
  │ service
  │ http · simulator · checks
  │ metrics
  │ receive · track · issue · legacy · declare · deliver · upkeep
  │ handover
  │ settle · ask · telling · unrecognized · current
  │ transport · store · certificates · settings
  │ resolver · sendable · interim · serving · logs · workers · deadline · fetch_queue
  │ accounts
  │ inbox · amazonpay · outbox
  │ ledger · addresses · shares · head · trouble
  │ errors · exchange · trace_context · durations · redis_address · healthcheck · printable

The pure folders see nothing but each other, errors, exchange and trace_context. Time and chance are arguments to them.
"""
