"""Signatures of announcements as uWSGI makes and checks them: which bytes they cover, with which digests, by whose key.

A signed datagram has two more vars at its end: `unix`, the seconds at which it was made, and `sign`, the signature of
all vars before it, by an RSA key (PKCS #1 v1.5) or an EC key (ECDSA). The header is not covered, so whoever has heard
an announcement can make a farewell of it; that is why a farewell is stamped one second later (replays.py).

Needs the package `cryptography`, so it is imported only where something is signed or checked: `pip install
'gfrouter[sign]'`. Digests are named as OpenSSL names them (EVP_get_digestbyname), in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from router.uwsgi import HEADER, build, iter_vars

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

DIGESTS: dict[str, type[hashes.HashAlgorithm]] = {
    "MD5": hashes.MD5,
    "SHA1": hashes.SHA1,
    "SHA224": hashes.SHA224,
    "SHA256": hashes.SHA256,
    "SHA384": hashes.SHA384,
    "SHA512": hashes.SHA512,
    "SHA512-224": hashes.SHA512_224,
    "SHA512-256": hashes.SHA512_256,
    "SHA3-224": hashes.SHA3_224,
    "SHA3-256": hashes.SHA3_256,
    "SHA3-384": hashes.SHA3_384,
    "SHA3-512": hashes.SHA3_512,
    "SM3": hashes.SM3,
}
# What `openssl list -digest-algorithms` names beside them, in lower case.
ALIASES = {
    "sha-1": "SHA1",
    "ssl3-md5": "MD5",
    "ssl3-sha1": "SHA1",
    "rsa-sha1-2": "SHA1",
    "rsa-sha512/224": "SHA512-224",
    "rsa-sha512/256": "SHA512-256",
    **{f"{family}-{bits}": f"SHA{bits}" for family in ("sha", "sha2") for bits in (224, 256, 384, 512)},
    **{f"{family}-512/{bits}": f"SHA512-{bits}" for family in ("sha", "sha2") for bits in (224, 256)},
    **{f"rsa-{name.lower()}": name for name in DIGESTS if not name.startswith("SHA512-")},
    **{f"{name.lower()}withrsaencryption": name for name in DIGESTS if not name.startswith("SHA3-")},
    **{f"id-rsassa-pkcs1-v1_5-with-{name.lower()}": name for name in DIGESTS if name.startswith("SHA3-")},
}
# Known to OpenSSL 3 and of no use there: it signs nothing with them, or has them in its legacy provider alone.
UNUSABLE = ("md4", "rsa-md4", "md4withrsaencryption", "whirlpool", "shake128", "shake256")
SIGN = b"sign"


def digest_named(name: str) -> hashes.HashAlgorithm:
    """The digest that OpenSSL has under this name; ValueError for one that is not among DIGESTS."""
    lower = name.lower()
    plain = {known.lower(): known for known in DIGESTS}
    found = plain.get(lower) or ALIASES.get(lower)
    if found:
        return DIGESTS[found]()
    why = "OpenSSL 3 does not sign with it" if lower in UNUSABLE else "not known here"
    raise ValueError(f"digest {name!r}: {why} (legal: {', '.join(DIGESTS)})")


def split(text: str) -> tuple[str, str]:
    """DIGEST:PATH taken apart, as uWSGI does; ValueError where it is none."""
    digest, colon, path = text.partition(":")
    if not (digest and colon and path):
        raise ValueError("no digest and path (legal: DIGEST:PATH, as in SHA256:/etc/uwsgi/keys)")
    return digest, path


def sign(datagram: bytes, digest: hashes.HashAlgorithm, private_key: PrivateKey, unix: int) -> bytes:
    """The same announcement or farewell, signed: with `unix` and `sign` behind its other vars, and a header that fits.

    `datagram` is what `build_announcement` makes, unsigned; `unix` is the time now, in seconds: a farewell is stamped
    one second later, as uWSGI's workers do. PacketError where it grows beyond a uwsgi packet.

        signer("SHA256:/etc/app.pem")(build_announcement(said), int(time()))
    """
    stamp = unix + (datagram[3] != 0)
    vars = [*iter_vars(datagram, len(datagram)), (b"unix", b"%d" % stamp)]
    data = build(vars, datagram[0], datagram[3])
    vars.append((SIGN, _signature(data[HEADER:], digest, private_key)))
    return build(vars, datagram[0], datagram[3])


def _signature(data: bytes, digest: hashes.HashAlgorithm, private_key: PrivateKey) -> bytes:
    if isinstance(private_key, rsa.RSAPrivateKey):
        return private_key.sign(data, PKCS1v15(), digest)
    return private_key.sign(data, ec.ECDSA(digest))


def signed_part(datagram: bytes, signature: bytes) -> bytes | None:
    """The bytes of `datagram` that its last var, `sign`, covers; None where that is not its last var."""
    last = len(SIGN).to_bytes(2, "little") + SIGN + len(signature).to_bytes(2, "little") + signature
    return datagram[HEADER : -len(last)] if datagram.endswith(last) else None


def verify(data: bytes, signature: bytes, digest: hashes.HashAlgorithm, public_key: PublicKey) -> bool:
    """Whether the owner of this key has signed these bytes. 30 to 130 µs with usual keys, 1 ms with rare curves."""
    try:
        if isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(signature, data, PKCS1v15(), digest)
        else:
            public_key.verify(signature, data, ec.ECDSA(digest))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):  # the last two: a key too small for the digest
        return False
    return True


def public_key(pem: bytes) -> PublicKey:
    """The RSA or EC key in this PEM file, else ValueError."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"no public key in PEM: {str(error).splitlines()[0] if str(error) else 'garbage'}") from None
    if not isinstance(key, PublicKey):
        raise ValueError("a key that is neither RSA nor EC")
    return key


def private_key(pem: bytes) -> PrivateKey:
    """The RSA or EC key in this PEM file, else ValueError."""
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise ValueError("a private key with a passphrase, which nobody is there to type") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"no private key in PEM: {str(error).splitlines()[0] if str(error) else 'garbage'}") from None
    if not isinstance(key, PrivateKey):
        raise ValueError("a key that is neither RSA nor EC")
    return key


def signer(text: str) -> Callable[[bytes, int], bytes]:
    """`sign` with what DIGEST:PRIVATE.pem names, as a function of datagram and unix. ValueError for what cannot be."""
    name, path = split(text)
    digest = digest_named(name)
    try:
        key = private_key(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return lambda datagram, unix: sign(datagram, digest, key, unix)
