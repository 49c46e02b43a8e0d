"""What `ps` shows of the processes, where the options ask for that: uWSGI's procname and its kin.

The package `setproctitle` writes it, if that is there: the place is the process's own command line, which Python keeps
to itself.
"""

from __future__ import annotations

from router.options import Options


def supervisors_title(options: Options) -> str:
    """Empty where nothing is asked for."""
    return _title(options, options.procname_master or options.procname or "uWSGI master")


def routers_title(options: Options, number: int) -> str:
    """Of the router of this slot, from 1; empty where nothing is asked for."""
    return _title(options, options.procname or f"uWSGI fastrouter {number}")


def show(title: str) -> bool:
    """Have `ps` show this of the process; an empty one changes nothing. False where it cannot be shown."""
    if title:
        try:
            import setproctitle
        except ImportError:
            return False
        setproctitle.setproctitle(title)
    return True


def _title(options: Options, name: str) -> str:
    before = f"{options.procname_prefix_spaced} " if options.procname_prefix_spaced else options.procname_prefix or ""
    after = options.procname_append or ""
    asked = options.auto_procname or options.procname or options.procname_master or before or after
    return f"{before}{name}{after}" if asked else ""
