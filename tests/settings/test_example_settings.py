"""The example in `deploy/` is what operators start from: it must load as it stands, and name every setting."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from pydantic import BaseModel

from receiver.settings import Settings, load
from tests.kit.accounts import merchant_key_pem
from tests.store.makers import SECRET

EXAMPLES = (
    'url = "redis',
    "password_file",
    "admin_",
    "throttle",
    "endpoint",
    "[accounts.",
    '"https://sns',
    "reasons",
    "over_refund",
    "auth_token_file",
    "access_key_id",
    "secret_access_key_file",
    "version",
    "signature_method",
    "user_header",
    "waiting_per_token",
    "clients_per_token",
    *("daily =", "time_zone =", "since =", "settled_within ="),
)
"""Lines that are commented out and are no defaults."""
EXAMPLE = Path(__file__).parents[2] / "deploy" / "receiver.toml"


def example(directory: Path, text: str) -> Settings:
    path = directory / "receiver.toml"
    path.write_text(text)
    (directory / "amazon-pay.pem").write_bytes(merchant_key_pem())
    (directory / "finance.secret").write_text(SECRET)
    (directory / "redis-password").write_text("hush")
    return load(path, {})


def test_the_example_loads(tmp_path: Path) -> None:
    """With the three files that it names beside it."""
    settings = example(tmp_path, EXAMPLE.read_text())
    assert [account.name for account in settings.build_accounts()] == ["us-sandbox"]
    assert [each.name for each in settings.build_subscribers(0)["us-sandbox"]] == ["finance"]


def test_what_is_commented_out_is_the_default(tmp_path: Path) -> None:
    """Taking the comment signs away changes nothing, but for the lines that are examples rather than defaults."""
    plain = example(tmp_path, EXAMPLE.read_text())
    shutil.rmtree(tmp_path / "receiver-data", ignore_errors=True)
    told = re.sub(r"^# (\[?[a-z_.]+\]?( =|$))", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    kept = [line for line in told.splitlines() if not line.startswith(EXAMPLES)]
    everything = example(tmp_path, "\n".join(kept))
    for name in ("redis", "http", "ingest", "track", "delivery", "feed", "log", "data_dir"):
        assert getattr(everything, name) == getattr(plain, name), name
    assert everything.accounts[0].poll == plain.accounts[0].poll


def test_the_subscribers_that_are_commented_out_load(tmp_path: Path) -> None:
    """Slack, Teams, PagerDuty and Alertmanager, each with its file."""
    told = re.sub(r"^# (\[\[subscribers\]\]|  [a-z_]+ = )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / "slack-webhook").write_text("https://hooks.slack.com/services/T0/B0/x")
    (tmp_path / "teams-webhook").write_text("https://prod-1.westus.logic.azure.com/workflows/1?sig=x")
    (tmp_path / "pagerduty-key").write_text("R" * 32)
    (tmp_path / "am-auth").write_text("Bearer token")
    built = example(tmp_path, told).build_subscribers(0)["us-sandbox"]
    assert [each.format for each in built] == ["cloudevents", "slack", "teams", "pagerduty", "alertmanager"]


def test_every_setting_is_in_the_example() -> None:
    """What can be set can be found."""
    text = EXAMPLE.read_text()
    missing = [
        f"{section}.{field}"
        for section, model in Settings.model_fields.items()
        if isinstance(model.annotation, type) and issubclass(model.annotation, BaseModel)
        for field in model.annotation.model_fields
        if not re.search(rf"^# {field} = ", text, re.MULTILINE)
    ]
    assert sorted(missing) == ["redis.password", "redis.url_file"]
