"""The map: what each file and folder of the package contains.

Values and decisions. PURE: no input or output, clock or random numbers

    errors.py · exchange.py    every error and its HTTP status; an HTTP request and its response
    ledger/           PURE · refunds, refund requests, charges and disputes; when to poll again
        declines/ · reconciliation/   many declines with one cause; Amazon's reports compared with the ledger
    amazon/           PURE · Amazon's formats: notifications, signed calls, answers, throttles
        sns/          the envelope of a notification, and the check of Amazon's signature
        fps/ · reports/   the legacy Flexible Payments Service; reports of refunds and settlements
    outbox/           PURE · what subscribers get: retries, dead letters
        events/       what happened, and what to do about it
        subscribers/  their filters, addresses and secrets
        formats/      events as CloudEvents, Slack, Teams, PagerDuty and Alertmanager messages

Infrastructure

    runtime/          the process: logs, metrics, servers, worker loops, deadlines
    transport/        the HTTP client: every outgoing web connection
    store/            Redis; each Lua script is stored beside the module that runs it
        redis/        connections, the catalogue of keys, scripts, errors
        refunds/      refunds, their schedule and their timeline
        requests/     refund requests, reservations, charges, jobs
        deliveries/   subscribers, delivery queues, dead letters, the stream of events
        maintenance/  versions of the data, pruning, inspection, repair
        embedded/     a Valkey server that the service starts itself
    settings/         every setting, checked as a whole before anything starts

The work. A VERB is an action that uses the folders above

    receive/          VERB · verify a notification, and store a hint that its refund may have changed
    track/            VERB · poll Amazon for the refunds that are due, and record changes and events
    issue/            VERB · send Create Refund for refund requests; each makes at most one refund
    deliver/          VERB · send events to subscribers

Interfaces and assembly

    http/             the HTTP endpoints, and how errors are answered
        ipn/          receives Amazon's notifications
        api/          the API: a file for each resource, such as refunds and subscribers
        feed/         all events, as a stream or in pages
        dashboard/    web pages for people
        openapi/      the description of the API
    simulator/        a stand-in for Amazon that shares none of the code above
        fps/ · notifications/ · reports/    its Flexible Payments Service, notifications and reports
    service.py        creates all objects, connects them, and runs the service
    client/           a Python client of the API, for other programs and for the commands
    commands/         the command line: a module or a folder for each command
        client/ · refund/ · subscriber/ · events/ · fps/ · serve/ · demo/ · doctor/

A unit may import only from the lines below its own line (tests/test_architecture.py):

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

PURE folders import only each other, errors and exchange. Time and random values are passed to them as arguments.
"""
