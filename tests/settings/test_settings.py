"""What can be configured, how, and which problems are reported."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from pathlib import Path

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.amazon.account import Environment
from receiver.amazon.calls import Region
from receiver.amazon.signing import Algorithm
from receiver.amazon.throttle import LIVE_THROTTLE, SANDBOX_THROTTLE, Bucket, Call
from receiver.errors import ConfigurationError
from receiver.ledger.polling import DEFAULT_POLL, PollPlan
from receiver.ledger.timestamps import milliseconds, parse_duration
from receiver.settings import Settings, load
from receiver.settings.sections import Scope
from receiver.store.redis.address import read_address
from tests.kit.configuration import (
    CERTIFICATE_URL,
    DIGEST,
    SECRET,
    TOPIC,
    alone,
    only,
    private_key,
    problems,
    several,
    table,
    written,
)

FULL = f"""
data_dir = "data"
[redis]
url = "redis://cache.example:6379/0"
password_file = "redis.txt"
[http]
port = 9000
trusted_proxies = ["10.0.0.0/8", "::1"]
[ingest]
max_age = "3d"
max_body = "64 KiB"
certificate_md5 = "warn"
[[tokens]]
name = "orders"
sha256 = "{DIGEST}"
scopes = ["read", "refund"]
accounts = ["us"]
[[accounts]]
name = "us"
merchant_id = "A2ZABCDEFGHIJ"
region = "eu"
environment = "live"
public_key_id = "LIVE-AG3EXAMPLE"
private_key_file = "amazon-pay.pem"
algorithm = "AMZN-PAY-RSASSA-PSS"
topic_arns = ["{TOPIC}", "arn:aws:sns:eu-west-1:291180941288:A1G*"]
endpoint = "http://127.0.0.1:9100"
signing_certificates = {{ "{CERTIFICATE_URL}" = "sns.pem" }}
throttle = {{ get_refund = [3, 0.5] }}
poll = ["1m", "every 1h"]
min_signature_version = 2
[delivery]
allow_networks = ["10.0.0.0/8"]
[[subscribers]]
name = "finance"
url = "https://10.1.2.3/hooks"
secret_file = "finance.txt"
reasons = ["AmazonRejected"]
"""


def full(folder: Path) -> Settings:
    (folder / "redis.txt").write_text("p@ss/word\n")
    (folder / "amazon-pay.pem").write_text(private_key())
    (folder / "sns.pem").write_bytes(b"PEM")
    (folder / "finance.txt").write_text(SECRET + "\n")
    return load(written(folder, FULL), {})


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    """Every table of the file arrives, and relative paths count from the file's folder."""
    loaded = full(tmp_path)
    assert loaded.data_dir == tmp_path / "data"
    assert loaded.redis.address == read_address("redis://:p%40ss%2Fword@cache.example:6379/0")
    assert loaded.http.port == 9000
    assert [str(network) for network in loaded.http.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert (loaded.ingest.max_age, loaded.ingest.max_body) == (timedelta(days=3), 65_536)
    assert loaded.tokens[0].scopes == {Scope.READ, Scope.REFUND}
    assert loaded.tokens[0].accounts == ("us",)


def test_a_whole_account_is_built(tmp_path: Path) -> None:
    """An account is built with its key, topics, buckets, plan and pinned certificates."""
    (account,) = full(tmp_path).build_accounts()
    assert (account.name, account.merchant_id, account.environment) == ("us", "A2ZABCDEFGHIJ", Environment.LIVE)
    assert (account.endpoint.region, account.endpoint.override) == (Region.EU, "http://127.0.0.1:9100")
    assert account.signer.algorithm is Algorithm.V1
    assert account.allows(TOPIC)
    assert account.allows("arn:aws:sns:eu-west-1:291180941288:A1G8446IYHA4MR")
    assert not account.allows("arn:aws:sns:eu-west-1:666666666666:A1G8446IYHA4MR")
    assert account.throttle[Call.GET_REFUND] == Bucket(3, 0.5)
    assert account.throttle[Call.GET_CHARGE] == LIVE_THROTTLE[Call.GET_CHARGE]
    assert account.poll == PollPlan.parse(["1m", "every 1h"])
    assert account.signing_certificates == {CERTIFICATE_URL: b"PEM"}
    assert account.min_signature_version == 2


def test_subscribers_are_built_by_account(tmp_path: Path) -> None:
    """A subscriber without an account belongs to the only one; an allowed network lets its private address pass."""
    built = full(tmp_path).build_subscribers(now=7)
    (finance,) = built["us"]
    assert (finance.name, finance.secrets[0].value, finance.reasons) == ("finance", SECRET, ("AmazonRejected",))
    assert (finance.types, finance.origin, finance.created_at) == (("amazonpay.refund.declined",), "config", 7)


def test_one_account_by_environment_alone() -> None:
    """Five variables are enough; name, environment and limits come from defaults and the key's prefix."""
    loaded = load(None, alone())
    (account,) = loaded.build_accounts()
    assert (account.name, account.environment) == ("default", Environment.SANDBOX)
    assert account.throttle == SANDBOX_THROTTLE
    assert account.poll == PollPlan.parse(DEFAULT_POLL)
    assert loaded.redis.address is None


def test_words_of_the_settings_are_known_in_any_letter_case() -> None:
    """As people write them, and as Amazon does (`Sandbox`)."""
    token = {"name": "a", "sha256": DIGEST, "scopes": ["Read", "ADMIN"]}
    account = table("us", region="NA", environment="Sandbox", over_refund={"chf": "75.00"})
    words = {"RECEIVER_LOG__LEVEL": "INFO", "RECEIVER_LOG__FORMAT": "JSON"}
    loaded = load(None, several(account, RECEIVER_TOKENS=json.dumps([token]), **words))
    (built,) = loaded.build_accounts()
    assert (built.endpoint.region, built.environment, built.over["CHF"]) == (Region.NA, Environment.SANDBOX, 7500)
    assert loaded.tokens[0].scopes == {Scope.READ, Scope.ADMIN}
    assert loaded.log.level == "info"


def test_defaults() -> None:
    """These apply without any configuration."""
    loaded = load(None, alone())
    assert (loaded.http.host, loaded.http.port) == ("127.0.0.1", 8000)
    assert loaded.ingest.max_body == 262_144
    assert loaded.ingest.body_timeout == timedelta(seconds=10)
    assert (loaded.ingest.max_age, loaded.ingest.max_future) == (timedelta(days=15), timedelta(minutes=5))
    assert loaded.ingest.certificate_md5 == "enforce"
    assert (loaded.delivery.concurrency, loaded.delivery.per_subscriber) == (256, 8)
    assert loaded.delivery.max_subscribers == 100
    assert (loaded.track.request_timeout, loaded.track.lease) == (timedelta(seconds=10), timedelta(seconds=30))
    assert loaded.redis.wait_replicas == 0


def test_environment_lies_over_the_file(tmp_path: Path) -> None:
    """A variable replaces the value of the file and leaves its neighbours."""
    path = written(tmp_path, '[http]\nhost = "0.0.0.0"\nport = 1\n')
    loaded = load(path, alone(RECEIVER_HTTP__PORT="2", RECEIVER_TRACK__REQUEST_TIMEOUT="5s"))
    assert (loaded.http.host, loaded.http.port) == ("0.0.0.0", 2)
    assert loaded.track.lease == timedelta(seconds=25)


def test_account_by_environment_completes_the_only_table(tmp_path: Path) -> None:
    """With one [[accounts]] in the file, RECEIVER_ACCOUNT__… adds what the file should not contain."""
    path = written(tmp_path, '[[accounts]]\nname = "us"\nregion = "jp"\n')
    environ = {key: value for key, value in alone().items() if not key.endswith("REGION")}
    (account,) = load(path, environ).build_accounts()
    assert (account.name, account.endpoint.region) == ("us", Region.JP)


def test_account_by_environment_beside_several_is_refused(tmp_path: Path) -> None:
    """It would be unclear which of two accounts RECEIVER_ACCOUNT__… means."""
    path = written(tmp_path, '[[accounts]]\nname = "us"\n[[accounts]]\nname = "eu"\n')
    assert any(problem.startswith("account: ") for problem in problems(alone(), path))


def test_lists_in_variables_are_json_or_commas() -> None:
    """`a,b` and `["a","b"]` are the same list."""
    for text in ("10.0.0.0/8, 192.168.0.0/16", '["10.0.0.0/8", "192.168.0.0/16"]'):
        loaded = load(None, alone(RECEIVER_DELIVERY__ALLOW_NETWORKS=text))
        assert [str(network) for network in loaded.delivery.allow_networks] == ["10.0.0.0/8", "192.168.0.0/16"]


def test_variables_that_are_not_settings_are_passed_over() -> None:
    """Empty variables, the command line's own, and links to a Service or container called `receiver…`."""
    load(
        None,
        alone(
            RECEIVER_HTTP__PORT="",
            RECEIVER_CONFIG="x.toml",
            RECEIVER_TOKEN="t",
            RECEIVER_URL="http://127.0.0.1:8000",
            RECEIVER_SERVICE_HOST="10.0.0.1",
            RECEIVER_PORT="tcp://10.0.0.1:8000",
            RECEIVER_SERVICE_PORT_HTTP="8000",
            RECEIVER_PORT_8000_TCP_ADDR="10.0.0.1",
            RECEIVER_REDIS_SERVICE_HOST="10.0.0.7",
            RECEIVER_REDIS_SERVICE_PORT="6379",
            RECEIVER_REDIS_SERVICE_PORT_TCP_REDIS="6379",
            RECEIVER_REDIS_PORT="tcp://10.0.0.7:6379",
            RECEIVER_REDIS_PORT_6379_TCP="tcp://10.0.0.7:6379",
            RECEIVER_REDIS_PORT_6379_TCP_PROTO="tcp",
            RECEIVER_DATA_DIR_PORT_53_UDP_PORT="53",
            RECEIVER_HTTP_PORT="udp://10.0.0.7:8000",
            RECEIVER_REDIS_NAME="/web/receiver-redis",
            RECEIVER_REDIS_ENV_LANG="C",
        ),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECEIVER_PORT", "9000"),
        ("RECEIVER_HTTP_PORT", "9000"),
        ("RECEIVER_REDIS__URLL", "redis://x"),
        ("RECEIVER_REDIS_URL", "redis://x"),
        ("RECEIVER_REDIS__SERVICE_HOST", "10.0.0.7"),
        ("RECEIVER_REDIS_SERVICE_PORT", "6379x"),
    ],
)
def test_a_mistyped_setting_stays_an_error(name: str, value: str) -> None:
    """Only what Kubernetes and Docker really write is passed over."""
    assert "is not a setting" in only(alone(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECEIVER_ACCOUNT__AUTH_TOKEN", "[token]"),
        ("RECEIVER_ACCOUNT__AUTH_TOKEN", "{token"),
        ("RECEIVER_REDIS__PASSWORD", "[1, 2]"),
    ],
)
def test_a_single_text_is_never_read_as_json(name: str, value: str) -> None:
    """JSON is read only where a list or a table is wanted."""
    load(None, alone(**{name: value, "RECEIVER_REDIS__URL": "redis://h"}))


def test_secret_files_may_have_a_byte_order_mark_and_dos_line_ends(tmp_path: Path) -> None:
    """Editors on Windows write both; neither is part of a secret, nor of a key."""
    key, token = tmp_path / "key.pem", tmp_path / "token"
    key.write_bytes(b"\xef\xbb\xbf" + private_key().replace("\n", "\r\n").encode())
    token.write_bytes(b"\xef\xbb\xbfabc\r\n")
    environ = alone(RECEIVER_ACCOUNT__PRIVATE_KEY_FILE=str(key), RECEIVER_ACCOUNT__AUTH_TOKEN_FILE=str(token))
    del environ["RECEIVER_ACCOUNT__PRIVATE_KEY"]
    [account] = load(None, environ).build_accounts()
    assert account.endpoint.auth_token == "abc"


@pytest.mark.parametrize(
    ("text", "days", "problem"),
    [
        ('["1d", "7d", "30d"]', [1, 7, 30], ""),
        ("[]", [], ""),
        ('["7d", "1d"]', [], "ascending order"),
        ('["1m"]', [], "1h to 365d each"),
        ('["soon"]', [], "span of time"),
    ],
)
def test_second_looks_are_ages(text: str, days: list[int], problem: str) -> None:
    environ = alone(RECEIVER_ACCOUNT__SECOND_LOOKS=text)
    if problem:
        assert problem in str(problems(environ))
    else:
        [account] = load(None, environ).build_accounts()
        assert list(account.second_looks) == [day * 86_400_000 for day in days]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ('daily = "04:00"', ""),
        ('daily = "23:59"\ntime_zone = "Europe/Berlin"\nsince = "30d"', ""),
        ('daily = "4:00"', "accounts[0].reconcile.daily"),
        ('daily = "24:00"', "accounts[0].reconcile.daily"),
        ('time_zone = "Berlin"', "is no time zone that this machine knows"),
        ('since = "91d"', "accounts[0].reconcile.since"),
    ],
)
def test_the_daily_comparison(tmp_path: Path, table: str, problem: str) -> None:
    path = written(tmp_path, f"[[accounts]]\n[accounts.reconcile]\n{table}\n")
    if problem:
        assert problem in str(problems(alone(), path))
    else:
        [account] = load(path, alone()).build_accounts()
        assert account.daily is not None
        assert account.daily.minute in (240, 1439)


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    """One start shows everything that is wrong: file, variables, values, contradictions, each with its key."""
    path = written(
        tmp_path,
        """
        [[accounts]]
        name = "us"
        merchant_id = "nonsense"
        regin = "na"
        environment = "live"
        public_key_id = "SANDBOX-AG3EXAMPLE"
        private_key_file = "missing.pem"
        topic_arns = ["*"]
        poll = ["now and then"]
        [[accounts]]
        name = "us"
        [track]
        lease = "20s"
        [[tokens]]
        name = "orders"
        sha256 = "abc"
        scopes = ["red"]
        accounts = ["de"]
        [[subscribers]]
        name = "finance"
        url = "http://finance.example/"
        """,
    )
    found = problems({"RECEIVER_HTPP__PORT": "1", "RECEIVER_DELIVERY__ALLOW_NETWORKS": "[1"}, path)
    keys = [problem.split(": ", 1)[0] for problem in found]
    assert set(keys) == {
        "RECEIVER_DELIVERY__ALLOW_NETWORKS",
        "htpp",
        "track.lease",
        "tokens[0].sha256",
        "tokens[0].scopes[0]",
        "tokens[0].accounts",
        "accounts[0].merchant_id",
        "accounts[0].region",
        "accounts[0].regin",
        "accounts[0].environment",
        "accounts[0].private_key_file",
        "accounts[0].topic_arns",
        "accounts[0].poll",
        "accounts[1].merchant_id",
        "accounts[1].region",
        "accounts[1].public_key_id",
        "accounts[1].private_key_file",
        "accounts[1].topic_arns",
        "accounts[1].name",
        "subscribers[0].account",
        "subscribers[0].url",
        "subscribers[0].secret",
    }, found
    assert len(keys) == len(set(keys)), found


@pytest.mark.parametrize("scheme", ["rediss://host", "rediss+sentinel://s1/refunds", "rediss+cluster://n1"])
def test_a_certificate_that_is_not_there_is_a_problem(scheme: str, tmp_path: Path) -> None:
    """Else it would look as if Redis could not be reached."""
    path = tmp_path / "ca.pem"
    address = {"RECEIVER_REDIS__URL": f"{scheme}?ssl_ca_certs={path}"}
    problem = only(alone(**address))
    assert problem.startswith("redis.url")
    assert f"ssl_ca_certs names {path}, which cannot be read." in problem
    trustme.CA().cert_pem.write_to_path(str(path))
    assert load(None, alone(**address)).redis.address == read_address(address["RECEIVER_REDIS__URL"])


def test_an_admin_port_makes_a_second_door() -> None:
    """Its host is that of the first by default; without it there is one door."""
    assert load(None, alone()).http.listeners == (("127.0.0.1", 8000),)
    shared = alone(RECEIVER_HTTP__HOST="0.0.0.0", RECEIVER_HTTP__ADMIN_PORT="8001")
    assert load(None, shared).http.listeners == (("0.0.0.0", 8000), ("0.0.0.0", 8001))
    own = {**shared, "RECEIVER_HTTP__ADMIN_HOST": "10.0.0.1", "RECEIVER_HTTP__ADMIN_PORT": "8000"}
    assert load(None, own).http.listeners == (("0.0.0.0", 8000), ("10.0.0.1", 8000))


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"ADMIN_PORT": "8000"}, "http.admin_port: is the same as http.port. Choose another"),
        ({"ADMIN_PORT": "8000", "ADMIN_HOST": "127.0.0.1"}, "http.admin_port: is the same as http.port."),
        ({"ADMIN_HOST": "127.0.0.1"}, "http.admin_port: is missing: admin_host has no effect without it."),
        ({"ADMIN_PORT": "65536"}, "http.admin_port: "),
    ],
)
def test_an_admin_port_that_cannot_be(environ: dict[str, str], problem: str) -> None:
    """Two listeners want two addresses."""
    assert only(alone(**{f"RECEIVER_HTTP__{name}": text for name, text in environ.items()})).startswith(problem)


def test_near_misses_are_suggested() -> None:
    """A key that is almost a setting names the setting; one that is far from all names those there are."""
    assert only(alone(RECEIVER_HTTP__PROT="1")) == "http.prot: is not a setting. Did you mean port?"
    assert only(alone(RECEIVER_RADIS__URL="x")) == "radis: is not a setting. Did you mean redis?"
    far = only(alone(RECEIVER_ACCOUNT__THROTTLE='{"zzz": [1, 1]}'))
    assert far.endswith(
        "throttle.zzz: is not a setting. Known here: create_refund, get_charge, get_dispute, get_refund, reports."
    )


def test_no_account_is_a_problem() -> None:
    """Without an account there is nothing to receive. The message names both ways to configure one and, if no settings
    file was named, how to name one."""
    for environ in ({}, {"RECEIVER_DATA_DIR": "data"}):
        assert "--config receiver.toml" in only(environ)
        assert "RECEIVER_ACCOUNT__MERCHANT_ID" in only(environ)
    problem = only({"RECEIVER_ACCOUNTS": "[]"})
    assert problem.startswith("accounts: is empty. It is a table [[accounts]]")
    assert "RECEIVER_ACCOUNT__MERCHANT_ID" in problem


def test_leases_are_long_enough() -> None:
    """A lease shorter than the request's timeout and 20 s would let two workers work on one thing."""
    for section, key in (("TRACK", "REQUEST_TIMEOUT"), ("DELIVERY", "TIMEOUT")):
        short = alone(**{f"RECEIVER_{section}__{key}": "12s", f"RECEIVER_{section}__LEASE": "31999ms"})
        problem = only(short)
        assert problem.startswith(f"{section.lower()}.lease: is too short")
        assert "at least 32s" in problem
        load(None, {**short, f"RECEIVER_{section}__LEASE": "32s"})


def test_redis_addresses(tmp_path: Path) -> None:
    """The scheme is one that the store knows; a password is given once, as text or file, and only with an address."""
    file = tmp_path / "url"
    file.write_text("rediss://user:secret@cache.example\n")
    assert load(None, alone(RECEIVER_REDIS__URL_FILE=str(file))).redis.address == read_address(
        "rediss://user:secret@cache.example"
    )
    plain = load(None, alone(RECEIVER_REDIS__URL="rediss://user@cache.example", RECEIVER_REDIS__PASSWORD="a b"))
    assert plain.redis.address == read_address("rediss://user:a%20b@cache.example")
    assert "must begin with one of redis://" in only(alone(RECEIVER_REDIS__URL="http://cache.example"))
    assert "has no scheme. Write for example redis://" in only(alone(RECEIVER_REDIS__URL="localhost:6379"))
    assert "a password but no address" in only(alone(RECEIVER_REDIS__PASSWORD="x"))
    twice = alone(RECEIVER_REDIS__URL="redis://:x@cache.example", RECEIVER_REDIS__PASSWORD="y")
    assert "holds a password already" in only(twice)


def test_tokens_refer_to_accounts_and_differ() -> None:
    """A token names accounts there are; two holders have two tokens."""
    one = {"name": "a", "sha256": DIGEST, "scopes": ["read"]}
    assert only(alone(RECEIVER_TOKENS=json.dumps([{**one, "accounts": ["de"]}]))).startswith(
        "tokens[0].accounts: no account is called de. There is: default."
    )
    same = only(alone(RECEIVER_TOKENS=json.dumps([one, {**one, "name": "b", "sha256": DIGEST.upper()}])))
    assert same.startswith("tokens[1].sha256: this value is used twice")
    assert DIGEST not in same.lower()


def test_each_account_has_so_many_subscribers_and_no_more() -> None:
    """Each account that has more is named, with every other problem; the limit can be raised."""
    many = [
        {"name": f"to-{number}", "account": account, "url": "https://finance.example/", "secret": SECRET}
        for account, count in (("a", 101), ("b", 100))
        for number in range(count)
    ]
    both = (table("a"), table("b", environment="sandbox"))
    over = several(*both, RECEIVER_SUBSCRIBERS=json.dumps(many))
    assert only(over) == (
        "subscribers: account a has 101, and delivery.max_subscribers allows 100. "
        "Remove some, or raise that setting (1000 at most)."
    )
    found = problems({**over, "RECEIVER_DELIVERY__MAX_SUBSCRIBERS": "99", "RECEIVER_DELIVERY__RATE": "0"})
    assert sorted(each.split(", ")[0] for each in found if each.startswith("subscribers")) == [
        "subscribers: account a has 101",
        "subscribers: account b has 100",
    ]
    assert [each.split(":")[0] for each in found if not each.startswith("subscribers")] == ["delivery.rate"]
    wrong = problems({**over, "RECEIVER_DELIVERY__MAX_SUBSCRIBERS": "1001"})
    assert [each.split(":")[0] for each in wrong] == ["delivery.max_subscribers"]
    raised = load(None, {**over, "RECEIVER_DELIVERY__MAX_SUBSCRIBERS": "101"})
    assert [len(found) for found in raised.build_subscribers(0).values()] == [101, 100]
    alone_ = alone(RECEIVER_SUBSCRIBERS=json.dumps([{**each, "account": "default"} for each in many[:101]]))
    assert only(alone_).startswith("subscribers: account default has 101")


def test_subscribers_name_their_account_where_there_are_several() -> None:
    """With two accounts a subscriber without one, or with an unknown one, is a problem."""
    one = {"name": "finance", "url": "https://finance.example/", "secret": SECRET}
    both = (table("a"), table("b", environment="sandbox"))
    unnamed = several(*both, RECEIVER_SUBSCRIBERS=json.dumps([one]))
    assert only(unnamed) == "subscribers[0].account: is missing, and there are several. There is: a, b."
    unknown = several(*both, RECEIVER_SUBSCRIBERS=json.dumps([{**one, "account": "c"}]))
    assert only(unknown) == "subscribers[0].account: no account is called c. There is: a, b."
    twice = several(*both, RECEIVER_SUBSCRIBERS=json.dumps([{**one, "account": "a"}] * 2))
    assert only(twice).startswith("subscribers[1].name: finance is used twice in account a.")
    named = load(None, several(*both, RECEIVER_SUBSCRIBERS=json.dumps([{**one, "account": "b"}])))
    assert [len(found) for found in named.build_subscribers(0).values()] == [0, 1]


def test_unreadable_files_are_said_so(tmp_path: Path) -> None:
    """No file, no text, no TOML: each has its own message. The rest is still checked, except for settings that the file
    may contain."""
    assert problems({}, tmp_path / "gone.toml")[0].startswith(f"{tmp_path}/gone.toml: cannot be read (No such file")
    path = written(tmp_path, "data_dir = ")
    assert "is not TOML" in problems(alone(), path)[0]
    path.write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in problems(alone(), path)[0]
    assert len(problems({}, path)) == 1
    assert len(problems({"RECEIVER_HTTP__PORT": "x"}, path)) == 2


@pytest.mark.parametrize("text", [f"a = {'[' * 5000}", f"a = {'9' * 5000}"])
def test_a_file_that_the_reader_of_toml_gives_up_on_is_a_problem(tmp_path: Path, text: str) -> None:
    """Nested beyond its depth, or a number beyond its length: a sentence, and no traceback."""
    path = written(tmp_path, text)
    assert only(alone(), path) == (
        f"{path}: cannot be read: it is nested too deeply, or has a number with thousands of digits."
    )


@pytest.mark.parametrize("key", ["DATA_DIR", "REDIS__URL_FILE", "ACCOUNT__AUTH_TOKEN_FILE"])
def test_a_home_that_does_not_exist_is_a_problem(key: str) -> None:
    """A user without an account on this machine."""
    assert "begins with ~, but no home directory is known for it." in only(
        alone(**{f"RECEIVER_{key}": "~no-such-user-of-the-test/x"})
    )


@pytest.mark.parametrize("key", ["redis.url_file", "redis.password_file", "account.auth_token_file"])
@pytest.mark.parametrize("secret", ["Hunter2", "redis://:Hunter2@cache/0", "Hunter2\0", "Hunter2" * 50])
def test_a_secret_in_place_of_its_file_is_not_repeated(key: str, secret: str) -> None:
    """The secret was set under the key of its file, and the sentence goes into a log."""
    said = only(alone(**{f"RECEIVER_{key.replace('.', '__').upper()}": secret}))
    assert said.startswith(f"{key.replace('account.', 'accounts[0].')}: names a file that cannot be read (")
    assert f"A relative path counts from {Path.cwd()}." in said
    assert "Hunter2" not in said


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    path = written(tmp_path, "")
    path.write_bytes(b"\xef\xbb\xbf[http]\r\nport = 81\r\n")
    assert load(path, alone()).http.port == 81


SECRETS = {
    "RECEIVER_REDIS__URL": "redis//:hunter2-url@x",
    "RECEIVER_ACCOUNT__PRIVATE_KEY": "hunter2-key",
    "RECEIVER_TOKENS": '[{"name": "a", "sha256": "hunter2-digest", "scopes": "read"}, {"secret": "hunter2-extra"}]',
    "RECEIVER_SUBSCRIBERS": '[{"name": "f", "url": "https://u:hunter2-pass@h/", "secret": "hunter2-secret"}]',
    "RECEIVER_REDIS": "hunter2-table",
    "RECEIVER_LOG__LEVEL": '{"hunter2-json": }',
}


def test_problems_never_repeat_secrets() -> None:
    """Whatever is wrong with a secret, the text about it does not show it."""
    found = problems({**alone(), **SECRETS})
    assert len(found) >= 6
    assert "hunter2" not in "\n".join(found)


def test_settings_do_not_show_secrets(tmp_path: Path) -> None:
    """Neither repr nor str of the settings holds a secret."""
    environ = alone(
        RECEIVER_REDIS__URL="redis://:hunter2@cache.example",
        RECEIVER_SUBSCRIBERS=json.dumps([{"name": "f", "url": "https://f.example/?k=hunter2", "secret": SECRET}]),
    )
    text = repr(load(None, environ))
    assert "hunter2" not in text
    assert SECRET not in text
    assert "PRIVATE KEY" not in text


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("250ms", 250),
        ("10s", 10_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("15d", 1_296_000_000),
        ("1w", 604_800_000),
        ("1H 30M", 5_400_000),
    ],
)
def test_spans(text: str, ms: int) -> None:
    """A span is a number with a unit, or several."""
    assert milliseconds(parse_duration(text)) == ms


@pytest.mark.parametrize("value", [10, "10", 10.0])
def test_a_bare_number_is_seconds(value: object) -> None:
    """Seconds are the unit where none is given."""
    assert parse_duration(value) == timedelta(seconds=10)


@given(st.one_of(st.text(), st.booleans(), st.none(), st.integers(), st.floats(), st.lists(st.integers())))
def test_any_value_is_a_span_or_a_value_error(value: object) -> None:
    """The reader of spans has one way to fail."""
    with contextlib.suppress(ValueError):
        assert parse_duration(value) >= timedelta(0)


@pytest.mark.parametrize("text", ["-5m", "0s", "fast", "5 minutes", "9999999d"])
def test_what_is_no_positive_span_is_refused(text: str) -> None:
    """Zero, negative, prose and centuries are refused."""
    assert only(alone(RECEIVER_INGEST__MAX_FUTURE=text)).startswith("ingest.max_future: must be")


NAMES = st.sampled_from(
    ["HTTP", "HTTP__PORT", "REDIS__URL", "TOKENS", "ACCOUNTS", "ACCOUNT__NAME", "SUBSCRIBERS", "X__Y__Z"]
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(NAMES, st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=20)))
def test_any_environment_gives_settings_or_a_configuration_error(values: dict[str, str]) -> None:
    """Nothing in the environment makes the loader fail in another way."""
    with contextlib.suppress(ConfigurationError):
        load(None, {**alone(), **{f"RECEIVER_{name}": value for name, value in values.items()}})


FORMATS_TOML = """
[delivery]
public_url = "https://refunds.example"
[[subscribers]]
name = "chat"
format = "slack"
url_file = "hook"
[[subscribers]]
name = "oncall"
format = "pagerduty"
routing_key_file = "key"
[[subscribers]]
name = "alerts"
format = "alertmanager"
url = "https://alertmanager.example"
authorization_file = "authorization"
seller_central = "https://sellercentral-europe.amazon.com"
"""


def test_subscribers_of_other_formats(tmp_path: Path) -> None:
    """What is a credential can stand in files; the links come from `[delivery]` where a subscriber has none."""
    path = written(tmp_path, FORMATS_TOML)
    (tmp_path / "hook").write_text("https://hooks.slack.com/services/hunter2\n")
    (tmp_path / "key").write_text("R" * 32 + "\n")
    (tmp_path / "authorization").write_text("Bearer hunter2\n")
    loaded = load(path, alone())
    chat, oncall, alerts = loaded.build_subscribers(0)["default"]
    assert (chat.url, chat.public_url) == ("https://hooks.slack.com/services/hunter2", "https://refunds.example")
    assert oncall.credential is not None
    assert oncall.credential.value == "R" * 32
    assert alerts.credential is not None
    assert (alerts.credential.value, alerts.seller_central) == (
        "Bearer hunter2",
        "https://sellercentral-europe.amazon.com",
    )
    assert "hunter2" not in repr(loaded)


def test_what_is_wrong_with_subscribers_of_other_formats(tmp_path: Path) -> None:
    """Each with its key, and no secret repeated."""
    path = written(
        tmp_path,
        FORMATS_TOML.replace("https://refunds.example", "refunds.example")
        .replace('routing_key_file = "key"', 'routing_key = "hunter2"')
        .replace('url_file = "hook"', 'url_file = "hook"\nurl = "https://hooks.slack.com/hunter2"\nsecret = "hunter2"'),
    )
    (tmp_path / "hook").write_text("https://hooks.slack.com/services/hunter2")
    found = problems(alone(), path)
    assert [problem.split(": ", 1)[0] for problem in found] == [
        "delivery.public_url",
        "subscribers[0].url_file",
        "subscribers[0].secret",
        "subscribers[1].routing_key",
        "subscribers[2].authorization_file",
    ]
    assert "hunter2" not in "\n".join(found)


def test_each_fault_of_a_subscriber_is_named_once(tmp_path: Path) -> None:
    """Two faults of one key are two sentences; a file that cannot be read is not also a missing value."""
    table = {
        "name": "finance",
        "url": "http://finance.example:25/",
        "secret_file": "gone",
        "secrte_file": "x",
        "start": 5,
        "routing_key_file": 7,
    }
    (tmp_path / "latin").write_bytes(b"\xff")
    other = {"name": "chat", "format": "slack", "url_file": "latin"}
    path = written(tmp_path, "")
    found = problems(alone(RECEIVER_SUBSCRIBERS=json.dumps([table, "x", other])), path)
    assert [problem.split(", ")[0].split(" (")[0] for problem in found] == [
        "subscribers[0].secret_file: names a file that cannot be read",
        "subscribers[0].routing_key_file: must be the path of a file",
        'subscribers[0].start: must be "now"',
        "subscribers[0].secrte_file: is not a field of a subscriber; did you mean secret_file? Known are name",
        "subscribers[0].url: must begin with https://; plain http is sent only where delivery.allow_http = true.",
        "subscribers[0].url: names port 25; use 443",
        "subscribers[1]: is not a table.",
        f"subscribers[2].url_file: {tmp_path}/latin is not text in UTF-8.",
    ]
    assert only(alone(RECEIVER_SUBSCRIBERS="5")).startswith("subscribers: must be a valid ")


def test_a_subscribers_thresholds_limits_and_beginning() -> None:
    """As in the API; a beginning that is no time is refused."""
    one = {"name": "finance", "url": "https://finance.example/", "secret": SECRET}
    more = {"min_amount": ["100.00 USD", "5000 JPY"], "rate": 2.5, "concurrency": 3, "start": "2026-01-31T12:00:00Z"}
    loaded = load(None, {**alone(), "RECEIVER_SUBSCRIBERS": json.dumps([{**one, **more}])})
    (built,) = loaded.build_subscribers(0)["default"]
    assert [str(amount) for amount in built.min_amount] == ["100.00 USD", "5000 JPY"]
    assert (built.rate, built.concurrency) == (2.5, 3)
    assert loaded.subscriber_starts() == {("default", "finance"): 1_769_860_800_000}
    lone = load(None, {**alone(), "RECEIVER_SUBSCRIBERS": json.dumps([{**one, "min_amount": "1 USD"}])})
    assert lone.subscriber_starts() == {("default", "finance"): None}
    for fault, says in (
        ({"start": "soon"}, 'subscribers[0].start: must be "now", "beginning"'),
        ({"min_amount": "a lot"}, "subscribers[0].min_amount: 'a lot' is not an amount"),
        ({"rate": 0}, "subscribers[0].rate: is not a number of messages a second"),
    ):
        environment = {**alone(), "RECEIVER_SUBSCRIBERS": json.dumps([{**one, **fault}])}
        assert only(environment).startswith(says)


def test_what_is_owed_is_kept_as_long_as_the_stream() -> None:
    """Otherwise events would be given up that all other clients can still read."""
    told = only({**alone(), "RECEIVER_EVENTS__KEEP_OWED": "29d"})
    assert told.startswith("events.keep_owed: must not be shorter than events.keep")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("X Forwarded User", "must be the name of a header"),
        ("X_Forwarded_User", "must be the name of a header"),
        ("X-Forwarded-User:", "must be the name of a header"),
        ("Authorization", "holds secrets"),
        ("cookie", "holds secrets"),
    ],
)
def test_a_user_header_is_the_name_of_one_without_secrets(name: str, problem: str) -> None:
    """Its value goes to the log and the audit trail."""
    (found,) = problems(alone(RECEIVER_HTTP__USER_HEADER=name))
    assert found.startswith("http.user_header: ")
    assert problem in found


def test_a_user_header_is_taken_as_it_is_written() -> None:
    """Without one, only the token is recorded."""
    assert load(None, alone()).http.user_header is None
    assert (
        load(None, alone(RECEIVER_HTTP__USER_HEADER="X-Auth-Request-Email")).http.user_header == "X-Auth-Request-Email"
    )
