"""Edge: files. The table `[accounts.fps]`: how an account calls Flexible Payments, which Amazon retired in 2015."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from receiver.amazon.account import Environment, FpsAccess
from receiver.amazon.fps.calls import HOSTS, Version, check_address
from receiver.amazon.fps.signing import ACCESS_KEY_ID, Credentials, SignatureMethod
from receiver.errors import BadRequest
from receiver.settings.values import Section, one_of, secret_text
from receiver.transport.addresses import is_loopback


class FpsSettings(Section):
    """The AWS access key and the endpoint. A field must follow the fields that its check needs."""

    access_key_id: str = Field(
        pattern=rf"^{ACCESS_KEY_ID.pattern}$",
        description="the AWS access key id of the account's Flexible Payments, 16 to 128 letters and digits.",
    )
    secret_access_key: SecretStr | None = None
    secret_access_key_file: Path | None = Field(default=None, validate_default=True)
    endpoint: str | None = None
    """None: Amazon's former address for the account's environment. It no longer answers."""
    version: Version = Version.V2008_05_01
    signature_method: SignatureMethod = SignatureMethod.HMAC_SHA256

    @field_validator("secret_access_key_file")
    @classmethod
    def _secret_works(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        file = one_of("secret_access_key", file, info, needed="the secret that belongs to access_key_id.")
        if "secret_access_key" not in info.data or "access_key_id" not in info.data:
            return file
        try:
            Credentials(info.data["access_key_id"], _secret(info.data["secret_access_key"], file))
        except BadRequest as error:
            raise ValueError(error.detail) from None
        return file

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_safe(cls, address: str | None) -> str | None:
        if address is None:
            return None
        try:
            parts = urlsplit(check_address(address))
        except BadRequest:
            raise ValueError('is not an address such as "http://127.0.0.1:9100/fps/".') from None
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError(
                "is plain http to another machine: anyone who sees a signed request can send it. Use https."
            )
        return address

    def build(self, environment: Environment) -> FpsAccess:
        """Build the FPS settings. Reads the secret."""
        secret = _secret(self.secret_access_key, self.secret_access_key_file)
        return FpsAccess(
            self.endpoint or HOSTS[environment.value],
            Credentials(self.access_key_id, secret),
            self.version,
            self.signature_method,
        )


def _secret(value: SecretStr | None, file: Path | None) -> str:
    return secret_text(value, file).strip()
