"""The key of an endpoint: where it comes from, and how it stays out of every log."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from sgv_lab.errors import LabError


def key(url: str) -> str:
    """OPENAI_API_KEY, which an endpoint on this machine does without. LabError if it is not set."""
    if value := os.environ.get("OPENAI_API_KEY"):
        return value
    if urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1"):
        return "no key needed"
    raise LabError("OPENAI_API_KEY is not set", fix="export the endpoint's key")


@contextmanager
def hidden(secret: str) -> Iterator[None]:
    """Cut the secret out of whatever is logged, by any library, while the context lasts.

    The client keeps the request's headers out of its logs, but an endpoint can send the key back,
    in a header or a status line, and these are logged.
    """
    usual = logging.getLogRecordFactory()

    def cut(*given: Any, **named: Any) -> logging.LogRecord:
        record = usual(*given, **named)
        text = record.getMessage()
        if secret in text:
            record.msg, record.args = text.replace(secret, "[key]"), ()
        return record

    logging.setLogRecordFactory(cut)
    try:
        yield
    finally:
        logging.setLogRecordFactory(usual)
