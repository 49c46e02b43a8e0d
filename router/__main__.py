"""The entry point: patch first, before anything else is imported, then hand over."""

from gevent import events, monkey

# Or gevent would look for plugins of its own in the metadata of every installed package, 25 times: half of the start.
events.notify_and_call_entry_points = events.notify  # type: ignore[attr-defined]
monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402

from router.cli import main  # noqa: E402


def fill_standard_descriptors() -> None:
    """Where 0, 1 or 2 came closed, a socket of ours would take its number, and the log or a router its place."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def run() -> None:
    """The `gfrouter` command."""
    fill_standard_descriptors()
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
