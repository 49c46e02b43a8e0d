"""The entry point: patch first, before anything else is imported, then hand over."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from router.cli import main  # noqa: E402


def run() -> None:
    """The `gfrouter` command."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
