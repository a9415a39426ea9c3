"""HTTP. `/v1/charges/{id}`: what is refunded, pending and left of a charge, and all its refunds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from receiver.errors import AmazonError, AmazonNotFound, BadRequest, NotFound
from receiver.http.api.bodies import only_account
from receiver.http.api.lookup import find_charges, the_charge
from receiver.http.api.operations import AMAZON, SEVERAL, Call, read_operation
from receiver.http.api.params import ACCOUNT, in_path
from receiver.http.limits import Refreshes, TooManyRefreshes
from receiver.http.problems import RefundProblemJson
from receiver.ledger.charge import Charge
from receiver.ledger.dispute import CHARGE_ID
from receiver.ledger.query import Query
from receiver.ledger.refund import AMAZON_REFUND_ID, REFUND_ID
from receiver.ledger.request_shape import ChargeJson, charge_json
from receiver.ledger.retryability import KnownCharge
from receiver.store import Store
from receiver.track.amazon_client import AmazonClient
from receiver.track.charges import ChargeReader, Charges
from receiver.track.current import current_refunds

MOST_SHOWN = 1_000
"""Refunds of one charge: Amazon accepts ten, and any number of declined ones."""
CHARGE: Final = in_path(
    "charge_id",
    "Amazon's id of the charge.",
    "S01-5105180-3221187-C056351",
    REFUND_ID,
    ("bad_charge_id", "A charge id must be 1 to 64 letters, digits and hyphens."),
)


class ChargeApi:
    """The handler. `amazon_clients` are keyed by account."""

    def __init__(self, store: Store, amazon_clients: Mapping[str, AmazonClient], refreshes: Refreshes) -> None:
        self._store, self._refreshes = store, refreshes
        self._readers = {name: ChargeReader(Charges(client)) for name, client in amazon_clients.items()}

    @read_operation(
        "GET",
        "/v1/charges/{charge_id}",
        id="getCharge",
        summary="A charge: what is refunded, pending and left, and all its refunds",
        about="Amazon is asked unless it has described the charge within the last minute. If it does not answer within "
        "three seconds, the answer is what is known, with `chargeReadAt` and `refreshError`. Each question to Amazon "
        "counts as a refresh (`http.refreshes`).",
        parameters=(CHARGE, ACCOUNT),
        problem=RefundProblemJson,
        reasons=(
            {
                404: ("no_such_charge",),
                409: ("account_needed",),
                422: ("amazon_refused",),
                429: ("too_many_refreshes",),
                502: (AMAZON,),
            },
            SEVERAL,
        ),
    )
    async def one(self, call: Call) -> ChargeJson:
        """The charge as Amazon described it within the last minute, or as it is known."""
        charge_id, accounts = call[CHARGE], call.accounts
        found = await find_charges(self._store, accounts, charge_id)
        if not found and not CHARGE_ID.fullmatch(charge_id):
            is_refund = AMAZON_REFUND_ID.fullmatch(charge_id) is not None
            raise BadRequest(
                "Amazon's charge ids look like S01-5105180-3221187-C056351, and no charge with this id is known."
                f"{' This is the id of a refund: look up its chargeId.' if is_refund else ''}",
                reason="bad_charge_id",
            )
        account, known = the_charge(found) if found else (only_account(accounts, "the account with ?account="), None)
        charge, refresh_error = await self._described(call, account, charge_id, known)
        # Read after the charge: what Amazon counts is known here if it can be.
        store = self._store.of(account)
        known = replace(await store.charges.known(charge_id), charge=charge)
        page = await store.refunds.page(Query(charge=charge_id), limit=MOST_SHOWN)
        refunds = await current_refunds(store, page.refunds)
        return charge_json(account, charge_id, known, refunds, refresh_error)

    async def _described(
        self, call: Call, account: str, charge_id: str, known: KnownCharge | None
    ) -> tuple[Charge | None, str]:
        """The charge as Amazon last described it, and why it is over a minute ago; empty if it is not.

        Raises what prevents the answer if nothing else is known of the charge.
        """
        kept = known.charge if known else None
        if not CHARGE_ID.fullmatch(charge_id):
            return kept, ""
        try:
            take = partial(self._refreshes.take, call.caller.name)
            return await self._readers[account].recent(charge_id, kept, take), ""
        except (AmazonError, TooManyRefreshes) as error:
            if known is not None:
                return kept, error.reason
            if isinstance(error, AmazonNotFound):
                raise NotFound(
                    f"Amazon does not know this charge in the account {account}. Check the id, and `account`.",
                    reason="no_such_charge",
                ) from None
            raise
