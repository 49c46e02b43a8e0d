"""`gfrouter keygen KEY`: a pair of keys for signed announcements, and what goes where.

The private key is the worker's, for it alone to read; the public one goes into the router's folder, under the name that
uWSGI gives to the file of this key.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

DIGEST = "SHA256"
RSA_BITS = 2048
ROUTER = "ROUTER:2626"  # what the worker's line says of the router, to be filled in


def main(argv: list[str]) -> int:
    """Make a pair of keys for signed announcements, and say what goes where."""
    given = _parser().parse_args(argv)
    try:
        from discovery import keypair
        from discovery.keyring import owner_of
    except ImportError as error:
        print(f"gfrouter keygen: {error.name} is missing (pip install 'gfrouter[sign]' brings it)", file=sys.stderr)
        return 1
    if not 0 < len(os.fsencode(given.key)) < 252:  # with .pem behind it, it is a file's name
        print("gfrouter keygen: a key has 1 to 251 bytes", file=sys.stderr)
        return 1
    name, folder = owner_of(given.key, mountpoints=False), Path(given.dir).absolute()
    private, public = folder / "private" / f"{name}.pem", folder / "public" / f"{name}.pem"
    secret, open_part = keypair.ec() if given.ec else keypair.rsa(RSA_BITS)
    try:
        private.parent.mkdir(0o700, parents=True, exist_ok=True)
        public.parent.mkdir(exist_ok=True)
        _write(private, secret, 0o600)
        try:
            _write(public, open_part, 0o644)
        except OSError:
            private.unlink()
            raise
    except OSError as error:
        print(f"gfrouter keygen: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(
        f"{private}: for the worker, and nobody else\n{public}: for the router\n\n"
        f"The worker, in its uWSGI's ini:\n\n"
        f"    subscribe2 = server={ROUTER},key={given.key},sign={DIGEST}:{private}\n\n"
        f"The router, in [uwsgi], where everybody signs from then on:\n\n"
        f"    subscriptions-sign-check = {DIGEST}:{public.parent}"
    )
    return 0


def _write(path: Path, data: bytes, mode: int) -> None:
    """A new file; OSError where there is one."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gfrouter keygen", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("key", metavar="KEY", help="what the worker announces, as foo.com")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--ec", action="store_true", help="an EC key on P-256, which is shorter")
    kind.add_argument("--rsa", action="store_true", help=f"an RSA key of {RSA_BITS} bits (default)")
    parser.add_argument("--dir", metavar="DIR", default=".", help="where private/ and public/ are (default: here)")
    return parser
