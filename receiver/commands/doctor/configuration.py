"""Edge: files. Checks of the settings beyond those at start: readable secrets, weak tokens, plain http."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from receiver.commands.console import plural
from receiver.commands.doctor.finding import Finding, fail, ok, plain_http, warn
from receiver.commands.doctor.site import Site
from receiver.settings.sections import Scope, TokenSettings

GUESSABLE = ("", "token", "secret", "test", "password", "changeme", "admin", "receiver", "TOKEN", "…")
"""Texts that are often hashed by mistake or used as a weak token."""
SECRET_LINE = re.compile(
    r"^\s*(private_key|auth_token|password|secret|secrets|secret_access_key|routing_key|authorization)\s*="
    r"|://[^/\s\"']*:[^/\s\"']+@|https://hooks\.slack\.com/\w|https://\S+[?&]sig=\w",
    re.MULTILINE,
)
MOST_CONFIG = 1024 * 1024


async def check_configuration(site: Site) -> list[Finding]:
    """A summary of the settings, and warnings about settings that are allowed but inadvisable."""
    settings = site.settings
    said = ", ".join(
        plural(len(found), word)
        for found, word in (
            (settings.accounts, "account"),
            (settings.tokens, "token"),
            (settings.subscribers, "subscriber"),
        )
    )
    findings = [ok("configuration.settings", f"{site.config or 'the environment'}: {said}")]
    findings += _files(site)
    findings += _tokens(site)
    findings += _plain_http(site)
    findings += _user_header(site)
    if settings.ingest.certificate_md5 == "warn":
        findings.append(
            warn(
                "configuration.certificate_md5",
                "certificate_md5_warn",
                "a certificate is trusted even if it does not match its file name",
                'Remove ingest.certificate_md5 = "warn" unless AWS has changed how it names its certificates.',
            )
        )
    return findings


def _files(site: Site) -> Iterator[Finding]:
    check, files = "configuration.secret_files", _secret_files(site)
    exposed = {path: trouble for path in files if (trouble := exposure(path))}
    for path, (reason, found, fix) in exposed.items():
        yield warn(check, reason, f"{path} {found}", fix, str(path))
    if len(files) > len(exposed):
        hidden = plural(len(files) - len(exposed), "file")
        yield ok(check, f"{hidden} with secrets, not readable by other users of this machine")


def _secret_files(site: Site) -> list[Path]:
    settings = site.settings
    found = [settings.redis.url_file, settings.redis.password_file]
    for account in settings.accounts:
        found += [account.private_key_file, account.auth_token_file]
        found += [account.fps.secret_access_key_file] if account.fps else []
    for each in settings.subscribers:
        found += each.files
    if site.config is not None and _holds_secrets(site.config):
        found.append(site.config.absolute())
    return list(dict.fromkeys(path for path in found if path is not None))


def _holds_secrets(config: Path) -> bool:
    try:
        with config.open("r", encoding="utf-8", errors="replace") as file:
            return SECRET_LINE.search(file.read(MOST_CONFIG)) is not None
    except OSError:
        return False


def exposure(path: Path) -> tuple[str, str, str] | None:
    """The reason, the finding and the fix if others than its owner and group can read or change the file; None if they
    cannot. A parent folder that others may not enter protects everything in it."""
    try:
        mode = path.stat().st_mode
        if not all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents):
            return None
    except OSError as error:
        fix = "Fix the path or its permissions."
        return "file_unreadable", f"cannot be accessed ({error.strerror})", fix
    if mode & stat.S_IWOTH:
        return "file_writable", f"({mode & 0o777:04o}) can be changed by every user", f"chmod o-rwx {path}"
    if mode & stat.S_IROTH:
        fix = f"chmod o-rwx {path} (a mounted Kubernetes Secret: defaultMode 0440, and fsGroup)"
        return "file_readable", f"({mode & 0o777:04o}) can be read by every user", fix
    return None


def _tokens(site: Site) -> Iterator[Finding]:
    tokens, check = site.settings.tokens, "configuration.tokens"
    if not tokens:
        fix = "Make one: receiver token NAME prints its table for the settings."
        yield warn(check, "no_tokens", "none: the API cannot be used", fix)
        return
    bad = [token for token in tokens if token_fault(token)]
    for token in bad:
        fix = f"Make a new one: receiver token {token.name} prints the token and its table."
        yield fail(check, "token_guessable", f"tokens.{token.name}: {token_fault(token)}", fix, token.name)
    scopes = {scope for token in tokens for scope in token.scopes}
    if site.token and _digest(site.token + "\n") in {token.sha256.lower() for token in tokens}:
        fix = "Hash the token without a newline: printf %s TOKEN | sha256sum."
        yield warn(check, "token_with_line_end", "the digest of your token was made with a trailing newline", fix)
    if not bad:
        named = ", ".join(scope.value for scope in Scope if scope in scopes)
        yield ok(check, f"{plural(len(tokens), 'token')}, for {named}")


def token_fault(token: TokenSettings) -> str:
    """What is wrong with the token behind the digest; empty if nothing is known."""
    if not token.sha256.strip("0"):
        return "the zeros of the example, which are the digest of no token"
    for text in (*GUESSABLE, token.name):
        for ending in ("", "\n"):
            if _digest(text + ending) == token.sha256.lower():
                return "the digest of an empty text" if not text else "the digest of an easily guessed word"
    return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _user_header(site: Site) -> Iterator[Finding]:
    http = site.settings.http
    if http.user_header and not http.trusted_proxies:
        found = f"{http.user_header} is ignored: no proxy is trusted, so no person is recorded"
        fix = "Set http.trusted_proxies to the address of the proxy that signs people in, or remove http.user_header."
        yield warn("configuration.user_header", "user_header_untrusted", found, fix)


def _plain_http(site: Site) -> Iterator[Finding]:
    for subscriber in site.settings.subscribers:
        if str(subscriber.fields.get("url")).lower().startswith("http://"):
            name = subscriber.name
            yield plain_http("configuration.subscriber_url", name, "Use an https address.", name)
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        path = os.environ.get(variable)
        if path and not Path(path).exists():
            yield fail(
                "configuration.trust_store",
                "trust_store_missing",
                f"{variable} names {path}, which does not exist: TLS certificates cannot be checked",
                f"Fix or unset {variable}.",
            )
