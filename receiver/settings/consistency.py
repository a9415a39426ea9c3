"""Pure. Checks of tables against each other, on the raw tree, so that one wrong value hides no other problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from receiver.amazon.calls import key_environment
from receiver.settings.sources import Tree


def contradictions(tree: Tree, most_subscribers: int | None) -> list[str]:
    """One sentence for each duplicate name, each dangling reference, and each duplicate account.

    Also one for each account with more than `most_subscribers`; None: no limit.
    """
    accounts, tokens, subscribers = (_tables(tree, key) for key in ("accounts", "tokens", "subscribers"))
    names = [str(account.get("name", "default")) for account in accounts]
    return [
        *_twice("accounts", "name", names, "Give each account a different name."),
        *_same_merchant(accounts, names),
        *_twice("tokens", "name", _column(tokens, "name"), "Give each token a different name."),
        *_twice("tokens", "sha256", _column(tokens, "sha256", fold=True), "Make a token for each holder.", show=False),
        *_token_accounts(tokens, names),
        *_subscriber_accounts(subscribers, names),
        *_too_many_subscribers(subscribers, names, most_subscribers),
    ]


def _tables(tree: Tree, key: str) -> list[Tree]:
    value = tree.get(key)
    return [item if isinstance(item, dict) else {} for item in value] if isinstance(value, list) else []


def _column(tables: Iterable[Tree], key: str, *, fold: bool = False) -> list[str]:
    values = [str(table.get(key) or "") for table in tables]
    return [value.lower() for value in values] if fold else values


def _twice(table: str, key: str, values: list[str], fix: str, *, show: bool = True) -> list[str]:
    repeated = [value for value, count in Counter(values).items() if value and count > 1]
    return [
        f"{table}[{max(index for index, it in enumerate(values) if it == value)}].{key}: "
        f"{value if show else 'this value'} is used twice. {fix}"
        for value in repeated
    ]


def _same_merchant(accounts: list[Tree], names: list[str]) -> list[str]:
    owner: dict[tuple[str, str], str] = {}
    problems = []
    for index, account in enumerate(accounts):
        merchant = str(account.get("merchant_id") or "")
        environment = account.get("environment") or key_environment(str(account.get("public_key_id") or ""))
        if not merchant or not environment:
            continue
        first = owner.setdefault((merchant, str(environment)), names[index])
        if first is not names[index]:
            problems.append(
                f"accounts[{index}].merchant_id: {merchant} in {environment} is account {first} already. "
                "Every notification would be counted twice: keep one, with the topics of both."
            )
    return problems


def _token_accounts(tokens: list[Tree], names: list[str]) -> list[str]:
    problems = []
    for index, token in enumerate(tokens):
        wanted = token.get("accounts")
        listed = wanted.split(",") if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
        unknown = [str(name).strip() for name in listed if str(name).strip() not in names]
        if unknown:
            problems.append(f"tokens[{index}].accounts: no account is called {', '.join(unknown)}. {_known(names)}")
        elif isinstance(wanted, list) and not wanted:
            problems.append(f"tokens[{index}].accounts: is empty. Leave it out to allow all accounts.")
    return problems


def _subscriber_accounts(subscribers: list[Tree], names: list[str]) -> list[str]:
    problems = []
    seen: Counter[tuple[Any, Any]] = Counter()
    for index, subscriber in enumerate(subscribers):
        account = subscriber.get("account") or (names[0] if len(names) == 1 else None)
        if account is None and len(names) > 1:
            problems.append(f"subscribers[{index}].account: is missing, and there are several. {_known(names)}")
        elif names and account not in names:
            problems.append(f"subscribers[{index}].account: no account is called {account}. {_known(names)}")
        key = (str(account), str(subscriber.get("name")))
        seen[key] += 1
        if seen[key] == 2 and subscriber.get("name"):
            problems.append(f"subscribers[{index}].name: {key[1]} is used twice in account {key[0]}. Rename one.")
    return problems


def _too_many_subscribers(subscribers: list[Tree], names: list[str], most: int | None) -> list[str]:
    counts = Counter(str(each.get("account") or (names[0] if len(names) == 1 else "")) for each in subscribers)
    return [
        f"subscribers: account {name} has {counts[name]}, and delivery.max_subscribers allows {most}. "
        "Remove some, or raise that setting (1000 at most)."
        for name in dict.fromkeys(names)
        if most is not None and counts[name] > most
    ]


def _known(names: list[str]) -> str:
    return f"There is: {', '.join(names)}." if names else ""
