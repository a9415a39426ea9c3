"""A webhook that sends a mail for each event, to people who read mail and nothing else.

    WEBHOOK_SECRET=whsec_… SMTP=smtp://mail.example:25 MAIL_FROM=refunds@shop.example MAIL_TO=finance@shop.example \\
        python deploy/examples/mail_bridge.py 3001

`smtps://user:password@host:465` signs in, over TLS. Needs Python alone, and webhook.py beside it. A mail that the
server does not take is a 500: the receiver sends the event again.
"""

from __future__ import annotations

import os
import smtplib
import ssl
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

from webhook import Event, main


def mail(event: Event) -> EmailMessage:
    """What people read: which refund, how much, why, and what to do."""
    data: dict[str, Any] = event["data"]
    amount, status = data.get("refundAmount") or {}, data.get("statusDetails") or {}
    what = event["type"].removeprefix("amazonpay.refund.")
    facts = {
        "Refund": event["subject"],
        "Amount": " ".join(filter(None, (amount.get("amount"), amount.get("currencyCode")))),
        "Order": data.get("orderReference"),
        "State": status.get("state"),
        "Reason": status.get("reasonCode"),
        "Amazon says": status.get("reasonDescription"),
        "When": event["time"],
    }
    advice = data.get("advice") or {}
    todo = [f"{number}. {each['text']}" for number, each in enumerate(advice.get("actions", ()), 1)]
    known = [f"{name}: {value}" for name, value in facts.items() if value]
    message = EmailMessage()
    message["Subject"] = " ".join(filter(None, ("Amazon Pay refund", what, event["subject"], facts["Amount"])))
    message["From"], message["To"] = os.environ["MAIL_FROM"], os.environ["MAIL_TO"]
    message["Message-ID"] = f"<{event['id']}@amazon-pay-refund-receiver>"
    message.set_content("\n".join([*known, "", advice.get("summary", data.get("text", "")), *todo]))
    return message


def handle(event: Event) -> None:
    """Send the mail. Raises if the server does not take it."""
    server = urlsplit(os.environ["SMTP"])
    host, port = server.hostname or "localhost", server.port or 25
    line = (
        smtplib.SMTP_SSL(host, port, timeout=8, context=ssl.create_default_context())
        if server.scheme == "smtps"
        else smtplib.SMTP(host, port, timeout=8)
    )
    with line:
        if server.username:
            line.login(unquote(server.username), unquote(server.password or ""))
        line.send_message(mail(event))
    print("mailed", event["type"], event["subject"], flush=True)


if __name__ == "__main__":
    main(handle)
