"""`gfrouter drain`, `undrain` and `eject`: have a gfrouter that runs send no requests somewhere, or send them again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any

from router.ask import NoAnswer, answered, arguments, ask, tell
from router.drains import EJECT_SECONDS
from router.pages import drains_page

STILL_IN_FLIGHT = 1  # the exit status of a drain that has waited in vain
LOOK_EVERY = 0.5  # seconds; each look asks all routers what they have counted


def drain(argv: list[str]) -> int:
    """Send no new requests to these nodes and keys; what is in flight is finished."""
    parser = _arguments("drain", drain.__doc__, "ADDRESS|KEY")
    parser.add_argument(
        "--wait", metavar="SECONDS", nargs="?", type=float, const=float("inf"), default=None,
        help="come back when nothing is in flight there any more, or after so long with status 1 (write this last)",
    )  # fmt: skip
    options = parser.parse_args(argv)

    def work() -> int:
        said = tell(options.admin, "drain", {"what": options.what})
        if options.wait is not None:
            said = _finished(options.admin, said, monotonic() + options.wait)
        _show(options, said, "drained")
        return 0 if options.wait is None or _is_quiet(said) else STILL_IN_FLIGHT

    return answered(work)


def undrain(argv: list[str]) -> int:
    """Send requests again to what was drained or ejected."""
    options = _arguments("undrain", undrain.__doc__, "ADDRESS|KEY").parse_args(argv)
    return answered(lambda: _done(options, "undrain", {"what": options.what}, "in service"))


def eject(argv: list[str]) -> int:
    """Leave these nodes out for a while, as if they had failed."""
    parser = _arguments("eject", eject.__doc__, "ADDRESS")
    parser.add_argument(
        "--for", metavar="SECONDS", dest="seconds", type=float, default=EJECT_SECONDS,
        help=f"so long (default: {EJECT_SECONDS:.0f}); then one request tries each",
    )  # fmt: skip
    options = parser.parse_args(argv)
    order = {"what": options.what, "seconds": options.seconds}
    return answered(lambda: _done(options, "eject", order, f"ejected for {options.seconds:g} s"))


def _arguments(name: str, about: str | None, metavar: str) -> argparse.ArgumentParser:
    parser = arguments(name, about)
    parser.add_argument("what", metavar=metavar, nargs="+", help="as `gfrouter lookup` names it")
    return parser


def _done(options: argparse.Namespace, verb: str, order: Mapping[str, Any], doing: str) -> int:
    _show(options, tell(options.admin, verb, order), doing)
    return 0


def _show(options: argparse.Namespace, said: Any, doing: str) -> None:
    print(json.dumps(said, indent=2) if options.json else "\n".join(drains_page(said, doing)))


def _finished(admin: str, said: Any, end: float) -> Any:
    """What is said of the same words when nothing is in flight there any more, or at `end` (monotonic seconds)."""
    ours = {(one["kind"], one["what"]) for one in said["drains"]}
    while not _is_quiet(said) and (left := end - monotonic()) > 0:
        sleep(min(LOOK_EVERY, left))
        found = [one for one in ask(admin, "drains")["drains"] if (one["kind"], one["what"]) in ours]
        if len(found) < len(ours):
            raise NoAnswer("what is to be waited for is drained no longer")
        said = {"drains": found}
    return said


def _is_quiet(said: Any) -> bool:
    return all(one["in_flight"] == 0 for one in said["drains"])
