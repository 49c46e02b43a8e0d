"""What --help prints: of the table of options, and what is to be known of all of them."""

from __future__ import annotations

import textwrap

from router.entry import help_of
from router.options import TABLE

INTRODUCTION = (
    "Passes uwsgi requests on to the workers that announce themselves, as the uWSGI FastRouter does. "
    "Without any option it listens on 127.0.0.1:3031 and takes announcements on 127.0.0.1:2626."
)
CLOSING = (
    "Names may be cut short while they stay unambiguous. Without the dashes they go into the section "
    "[gfrouter] of an ini file, and in capitals, as GFROUTER_NAME, into the environment; uWSGI's spellings "
    "go into [uwsgi] and, as UWSGI_NAME, into the environment. The command line is stronger than files, "
    "files than the environment."
)


def help_text(width: int = 80) -> str:
    """What --help prints, wrapped to `width` columns."""
    usage = "usage: gfrouter [OPTION ...] [FILE.ini[:SECTION] ...]\n       gfrouter COMMAND [WORD ...]"
    introduction, closing = textwrap.wrap(INTRODUCTION, width), textwrap.wrap(CLOSING, width)
    lines = [usage, "", *introduction, "", *help_of(TABLE, width), "  --help, --version", "", *closing]
    return "\n".join(lines) + "\n"
