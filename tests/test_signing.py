"""Signatures: what they cover, which digests there are, and who takes what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from announced import NODE, UNSUBSCRIBE, packet
from discovery import signing
from discovery.announcement import parse_announcement
from router.uwsgi import HEADER, iter_vars, packet_size
from signed import EC, PRIVATE, PUBLIC, RSA, STRANGER

NOW = 1_700_000_000
SHA256 = signing.digest_named("SHA256")


def signed(kind: str = RSA, digest: str = "SHA256", datagram: bytes = b"") -> bytes:
    return signing.sign(datagram or packet(), signing.digest_named(digest), signing.private_key(PRIVATE[kind]), NOW)


def holds(datagram: bytes, kind: str, digest: str = "SHA256") -> bool:
    signature = parse_announcement(datagram).sign
    part = signing.signed_part(datagram, signature)
    assert part is not None
    return signing.verify(part, signature, signing.digest_named(digest), signing.public_key(PUBLIC[kind]))


@pytest.mark.parametrize("kind", [RSA, EC])
@pytest.mark.parametrize("digest", signing.DIGESTS)
def test_a_signature_holds_for_its_key_and_digest_alone(kind: str, digest: str) -> None:
    datagram = signed(kind, digest)
    assert holds(datagram, kind, digest)
    assert not holds(datagram, STRANGER, digest)
    assert not holds(datagram, EC if kind == RSA else RSA, digest)
    other = "SHA384" if digest != "SHA384" else "SHA1"
    assert not holds(datagram, kind, other)


@pytest.mark.parametrize("kind", [RSA, EC])
def test_a_signature_covers_every_byte_before_it_and_not_the_header(kind: str) -> None:
    datagram = signed(kind)
    signature = parse_announcement(datagram).sign
    part = signing.signed_part(datagram, signature)
    assert part == datagram[HEADER : HEADER + len(part or b"")]
    assert datagram[HEADER + len(part) :] == b"\x04\0sign" + len(signature).to_bytes(2, "little") + signature
    key = signing.public_key(PUBLIC[kind])
    for at in range(len(part)):
        changed = part[:at] + bytes((part[at] ^ 1,)) + part[at + 1 :]
        assert not signing.verify(changed, signature, SHA256, key)
    assert not signing.verify(part, signature[:-1], SHA256, key)
    assert not signing.verify(part, b"", SHA256, key)


def test_it_stands_behind_what_was_said_before_with_the_time() -> None:
    datagram = signed(datagram=packet(weight=3, pad="x"))
    vars = list(iter_vars(datagram, len(datagram)))
    assert vars[:-2] == [(b"key", b"foo.com"), (b"address", NODE.encode()), (b"weight", b"3"), (b"pad", b"x")]
    assert vars[-2] == (b"unix", b"%d" % NOW)
    assert vars[-1][0] == b"sign"
    assert packet_size(datagram) == len(datagram)
    assert (datagram[0], datagram[3]) == (224, 0)


def test_a_farewell_is_stamped_one_second_later_as_uwsgis() -> None:
    datagram = signing.sign(packet(UNSUBSCRIBE), SHA256, signing.private_key(PRIVATE[RSA]), NOW)
    said = parse_announcement(datagram)
    assert (said.subscribe, said.unix) == (False, NOW + 1)


@pytest.mark.parametrize("rest", [b"\1\0x\0\0", b"\4\0sign\0\0"])
def test_what_stands_behind_the_signature_is_covered_by_none(rest: bytes) -> None:
    datagram = signed()
    assert signing.signed_part(datagram + rest, parse_announcement(datagram).sign) is None


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("sha1", "sha1"),
        ("RSA-SHA1", "sha1"),
        ("ssl3-SHA1", "sha1"),
        ("sha256WithRSAEncryption", "sha256"),
        ("SHA2-256", "sha256"),
        ("SHA-512", "sha512"),
        ("RSA-SHA512/256", "sha512-256"),
        ("sha512-224WithRSAEncryption", "sha512-224"),
        ("RSA-SHA3-256", "sha3-256"),
        ("id-rsassa-pkcs1-v1_5-with-sha3-512", "sha3-512"),
        ("rsa-md5", "md5"),
        ("sm3", "sm3"),
    ],
)
def test_digests_have_openssls_names_in_any_case(name: str, digest: str) -> None:
    assert signing.digest_named(name).name == digest


@pytest.mark.parametrize(
    ("name", "why"),
    [("SHA17", "not known here"), ("", "not known here"), ("SHAKE128", "OpenSSL 3 does not sign with it")],
)
def test_a_digest_that_cannot_be_is_named_with_those_that_can(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"digest {name!r}: {why} .legal: MD5, SHA1, .*, SM3"):
        signing.digest_named(name)


def pem_of(key: object) -> bytes:
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "no public key in PEM"),
        (b"garbage", "no public key in PEM"),
        (os.urandom(3000), "no public key in PEM"),
        (PRIVATE[RSA], "no public key in PEM"),
        (PUBLIC[RSA][:100], "no public key in PEM"),
        (pem_of(ed25519.Ed25519PrivateKey.generate()), "a key that is neither RSA nor EC"),
    ],
    ids=str,
)
def test_what_is_no_public_key_says_so(pem: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        signing.public_key(pem)


def test_a_key_too_small_for_the_digest_verifies_nothing() -> None:
    """512 bits of digest and its name do not fit into 512 bits of key."""
    small = rsa.RSAPublicNumbers(65537, (1 << 1023) + 1155).public_key()
    assert not signing.verify(b"x", bytes(128), signing.digest_named("SHA512"), small)


def test_a_signer_is_a_digest_and_a_private_key(tmp_path: Path) -> None:
    file = tmp_path / "a:b.pem"  # only the first colon parts the two
    file.write_bytes(PRIVATE[EC])
    assert holds(signing.signer(f"SHA1:{file}")(packet(), NOW), EC, "SHA1")


@pytest.mark.parametrize("text", ["", "SHA1", "SHA1:", ":/x"])
def test_a_signer_needs_both(text: str) -> None:
    with pytest.raises(ValueError, match="no digest and path"):
        signing.signer(text)


def test_a_signer_names_the_file_and_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.pem: No such file"):
        signing.signer(f"SHA1:{tmp_path}/none.pem")
    wrong = tmp_path / "wrong.pem"
    for pem, why in (PUBLIC[RSA], "no private key"), (b"", "no private key"):
        wrong.write_bytes(pem)
        with pytest.raises(ValueError, match=f"wrong.pem: {why}"):
            signing.signer(f"SHA1:{wrong}")
    key = ec.generate_private_key(ec.SECP256R1())
    wrong.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ValueError, match=r"wrong.pem: .*passphrase"):
        signing.signer(f"SHA1:{wrong}")
