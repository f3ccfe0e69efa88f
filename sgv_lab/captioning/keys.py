"""The address and the key of an endpoint: checked at once, and how the key stays out of logs."""

import logging
import os
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from sgv_lab.errors import LabError

_TRANSPORT = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")


def quiet() -> None:
    """Keep the transport's libraries from logging: endpoints repeat the key in what these log."""
    for name in (*_TRANSPORT, *logging.root.manager.loggerDict):
        if name.split(".")[0] in _TRANSPORT:
            logging.getLogger(name).setLevel(logging.WARNING)


def checked(url: str) -> str:
    """The address. Raises LabError for one that is none, before anything is sent."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        whole = False
    if whole and not re.search(r"\s", url):
        return url
    bare = re.sub(r"^\w+:/*(?=\D)", "", url).rpartition("@")[2].partition("?")[0]
    raise LabError("is no address of an endpoint", where=bare, fix=f"write http://{bare or '…'}")


def key(url: str) -> str:
    """OPENAI_API_KEY, which an endpoint on this machine or network does without.

    Raises LabError if it is not set, or cannot be one; it is not shown.
    """
    value = os.environ.get("OPENAI_API_KEY")
    if not value:
        if _near(urlsplit(url).hostname or ""):
            return "none"
        raise LabError("OPENAI_API_KEY is not set", fix="export the endpoint's key")
    kinds = {
        "a line end": r"[\r\n]",
        "a blank": r"\s",
        "a quotation mark": "[\"'‘’“”]",
        "a character that is not ASCII": r"[^\x00-\x7f]",
        "a control character": r"[\x00-\x1f\x7f]",
    }
    for what, pattern in kinds.items():
        if re.search(pattern, value):
            raise LabError(f"OPENAI_API_KEY holds {what}", fix="export it anew without")
    return value


def _near(host: str) -> bool:
    """Whether a host is this machine, or one of its network: such servers seldom have keys."""
    try:
        address = ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal"))
    return address.is_loopback or address.is_private or address.is_unspecified


def redacted(text: str, key: str) -> str:
    """An error's text without the key.

    Short words, such as "x", "none" and "EMPTY", guard nothing: they stay, as an error without
    its x could not be read.
    """
    return text.replace(key, "[key]") if len(key) >= (8 if key.isalpha() else 6) else text
