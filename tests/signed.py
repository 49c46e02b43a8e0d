"""Keys for signed announcements, made once for a run of the tests, and a folder that holds the public ones.

folder = keys(tmp_path, "foo.com", kind=EC)      foo.com.pem, and foo.com-private.pem elsewhere
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

RSA, EC, STRANGER = "RSA", "EC", "a stranger's RSA"

_KEYS: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
    RSA: rsa.generate_private_key(65537, 2048),
    EC: ec.generate_private_key(ec.SECP256R1()),
    STRANGER: rsa.generate_private_key(65537, 2048),
}
PRIVATE = {kind: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for kind, key in _KEYS.items()}
PUBLIC = {
    kind: key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for kind, key in _KEYS.items()
}


def keys(folder: Path, *names: str, kind: str = RSA) -> Path:
    """The folder `public` in `folder`, with the public key of this kind for each of the names."""
    public = folder / "public"
    public.mkdir(exist_ok=True)
    for name in names or ("foo.com",):
        (public / f"{name}.pem").write_bytes(PUBLIC[kind])
    return public


def private(folder: Path, kind: str = RSA) -> Path:
    """The file with the private key of this kind."""
    file = folder / f"private-{kind[0]}.pem"
    file.write_bytes(PRIVATE[kind])
    return file
