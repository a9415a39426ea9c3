"""The map. Amazon Pay says that a refund may have changed; the rooms say what becomes of it, in this order.

Values, and decisions about them

    errors.py · exchange.py    every error: whose fault, which status; an HTTP request and its response
    ledger/           PURE · what we know: refunds, requests, charges and disputes, and when to ask again
        declines/ · reconciliation/   many declines with one cause; Amazon's reports, compared with what is known
    amazon/           PURE · what Amazon says and hears: notifications, signed calls, answers, throttles
        sns/          the envelope of a notification, and the proof that Amazon signed it
        fps/ · reports/   the legacy Flexible Payments Service; files of refunds and settlements
    outbox/           PURE · what we owe: retries, dead letters
        events/       what happened, and what to do about it
        subscribers/  who wants which events, and where
        formats/      events as CloudEvents, Slack, Teams, PagerDuty and Alertmanager messages

What the outside needs

    runtime/          the process: logs, metrics, servers, worker loops, deadlines
    transport/        everything that goes out to the web
    store/            Redis; each Lua script stands beside the module that runs it
        redis/        connections, the catalogue of keys, scripts, errors
        refunds/      refunds, their schedule and their timeline
        requests/     refund requests, reservations, charges, jobs
        deliveries/   subscribers, delivery queues, dead letters, the stream of events
        maintenance/  versions of the data, pruning, inspection, repair
        embedded/     a Valkey of our own
    settings/         every setting, checked as a whole before anything starts

The work

    receive/          VERB · a notification → proven, and a hint written down
    track/            VERB · what is due → ask Amazon → the ledger, and events
    issue/            VERB · a refund request → Create Refund, exactly once
    deliver/          VERB · events that are owed → subscribers

Around it

    http/             what others call, and how errors are answered
        ipn/          Amazon's notifications
        api/          refunds, charges, requests, subscribers, deliveries: a file for each resource
        feed/         all events, as a stream or in pages
        dashboard/    the same for people
        openapi/      the description of the API
    simulator/        a stand-in for Amazon that shares none of the code above
        fps/ · notifications/ · reports/    its Flexible Payments Service, what it posts, its reports
    service.py        builds everything once, by hand, and runs it
    client/           a client of the API, for other programs and for the commands
    commands/         the command line: a module or a folder for each command
        client/ · refund/ · subscriber/ · events/ · fps/ · serve/ · demo/ · doctor/

Imports go down only, and nothing imports what stands beside it (tests/test_architecture.py):

  │ __main__
  │ commands
  │ client · service
  │ http · simulator
  │ issue · deliver
  │ receive · track
  │ settings
  │ store
  │ runtime · transport
  │ amazon · outbox
  │ ledger
  │ errors · exchange

The pure rooms import nothing but each other, errors and exchange. Time and randomness are arguments to them.
"""
