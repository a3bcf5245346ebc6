"""Where a served model is: `openai:http://host:port/v1#name`, its credentials kept apart.

Keys come from the environment, never from the command line. A user name and a password in the
address are used, and are in no text that this module gives out.
"""

import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from mingmoe_eval.errors import UsageError

PREFIX = "openai:"
KEY_VARIABLES = ("MINGMOE_API_KEY", "OPENAI_API_KEY")

_FORM = f"{PREFIX}http://HOST:PORT/v1#MODEL"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Servers that want no key are often given a word such as "EMPTY", which answers may well hold.
_SHORTEST_SECRET = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAddress:
    """An OpenAI-compatible endpoint and the model's name there; "" is the only one it serves."""

    base_url: str
    name: str = ""
    login: tuple[str, str] | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)

    @property
    def public(self) -> str:
        """The address as it may be written anywhere."""
        return f"{PREFIX}{self.base_url}" + (f"#{self.name}" if self.name else "")

    @property
    def exposes_secrets(self) -> bool:
        """Whether credentials would cross a network unencrypted."""
        parts = urlsplit(self.base_url)
        return bool(self.secrets) and parts.scheme == "http" and parts.hostname not in _LOOPBACK

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every form in which a credential could turn up in a text, the longest first."""
        found = {self.key or ""}
        if self.login:
            pair = ":".join(self.login)
            found |= {b64encode(pair.encode()).decode(), self.login[1], quote(self.login[1])}
        return tuple(sorted((s for s in found if len(s) >= _SHORTEST_SECRET), key=len)[::-1])

    def redact(self, text: str) -> str:
        """The text without the credentials, should a server repeat them."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def redact_json(self, value: Any) -> Any:
        """The same for every text in parsed JSON, where no escape can hide one."""
        if not self.secrets:
            return value
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, list):
            return [self.redact_json(item) for item in value]
        if isinstance(value, dict):
            return {self.redact(key): self.redact_json(item) for key, item in value.items()}
        return value


def is_served(model: str) -> bool:
    """Whether `--model` names an endpoint instead of a checkpoint."""
    return model.startswith(PREFIX)


def without_credentials(model: str) -> str:
    """What may be saved of `--model`; anything but an endpoint's address comes back as it is.

    Raises:
        UsageError: the address of an endpoint cannot be understood.
    """
    return served_address(model, environment={}).public if is_served(model) else model


def model_in_words(model: str) -> str:
    """A short name of an endpoint's model for a folder: what follows the last "/", else the host.

    "" for anything but an endpoint's address.

    Raises:
        UsageError: the address of an endpoint cannot be understood.
    """
    if not is_served(model):
        return ""
    address = served_address(model, environment={})
    host = urlsplit(address.base_url).netloc
    name = address.name.rstrip("/").rpartition("/")[2] or host
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).lstrip(".") or "served"


def served_address(model: str, *, environment: Mapping[str, str] | None = None) -> ServedAddress:
    """The endpoint that `--model` names, with its credentials.

    Raises:
        UsageError: the address cannot be understood; the message never repeats it, because it may
            hold a password.
    """
    variables = os.environ if environment is None else environment
    try:
        parts = urlsplit(model.removeprefix(PREFIX).strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"--model {PREFIX}...: the address of a served model is {_FORM}")
    if parts.query:
        raise UsageError(
            f"--model {PREFIX}...: an address takes no query ('?...'); a key belongs in the "
            f"environment variable {KEY_VARIABLES[0]}"
        )
    place = f"[{host}]" if ":" in host else host
    return ServedAddress(
        base_url=f"{parts.scheme}://{place}{f':{port}' if port else ''}{parts.path.rstrip('/')}",
        name=unquote(parts.fragment),
        login=(unquote(parts.username or ""), unquote(parts.password or ""))
        if "@" in parts.netloc
        else None,
        key=_key(variables),
    )


def _key(variables: Mapping[str, str]) -> str | None:
    for name in KEY_VARIABLES:
        if key := variables.get(name, "").strip():
            if not key.isascii() or not key.isprintable():
                raise UsageError(f"{name} holds characters that no key has")
            return key
    return None
