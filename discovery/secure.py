"""TLS and secrets towards those whom we announce at."""

from __future__ import annotations

import ssl
from pathlib import Path

from discovery.announcetarget import Trouble


def tls_of(wanted: bool, ca_file: str) -> ssl.SSLContext | None:
    """None without TLS. ValueError where the certificates cannot be used."""
    if not wanted and not ca_file:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"ca-file {ca_file} cannot be used: {error}") from None


def read_secret(setting: str, file: str) -> str:
    """What the file of this setting holds, without the blanks around it. Trouble where it cannot be read."""
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeError) as error:
        raise Trouble(f"{setting} {file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
