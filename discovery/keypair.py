"""Pairs of keys that sign announcements, as PEM. Needs the package `cryptography`."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec as curves
from cryptography.hazmat.primitives.asymmetric import rsa as primes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from discovery.signing import PrivateKey

Pair = tuple[bytes, bytes]  # the private key without a passphrase, and the public one


def rsa(bits: int) -> Pair:
    return _pem(primes.generate_private_key(65_537, bits))


def ec() -> Pair:
    """On P-256, the fastest curve to verify."""
    return _pem(curves.generate_private_key(curves.SECP256R1()))


def _pem(key: PrivateKey) -> Pair:
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
