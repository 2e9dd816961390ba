"""What a server shows and asks for: a certificate, and keys."""

import hashlib
import hmac
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import grpc


class CredentialsError(ValueError):
    """A certificate, private key or key file that cannot be used; the message says why."""


@dataclass(frozen=True)
class Certificate:
    """A certificate chain and its private key, both PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    context: ssl.SSLContext = field(repr=False)

    def for_grpc(self) -> grpc.ServerCredentials:
        """What gRPC takes."""
        return grpc.ssl_server_credentials([(self.key, self.chain)])


@dataclass(frozen=True)
class Keys:
    """The keys that clients may show, of which only digests are kept."""

    digests: tuple[bytes, ...] = field(repr=False)

    def allow(self, authorization: str | None) -> bool:
        """Whether the value of an `authorization` header or metadata entry is `Bearer KEY`."""
        scheme, _, key = (authorization or "").partition(" ")
        shown = _digest(key.strip())
        # All are compared, each in constant time, so that the time tells nothing about them.
        hits = [hmac.compare_digest(shown, digest) for digest in self.digests]
        return any(hits) and scheme.lower() == "bearer"


def load_certificate(certificate: Path, key: Path) -> Certificate:
    """Reads the two PEM files. Raises CredentialsError."""
    chain, private = _read(certificate, "TLS certificate"), _read(key, "TLS key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password of our own, an encrypted key would be asked for on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise CredentialsError(
            f"TLS certificate {certificate} and key {key} cannot be used together: {error}; give "
            "a PEM certificate chain and its own PEM private key without a password"
        ) from error
    return Certificate(chain, private, context)


def load_keys(path: Path) -> Keys:
    """Reads a file of one key a line; empty lines and those that start with # do not count.

    Raises CredentialsError, which never shows a key.
    """
    data = _read(path, "API key file")
    try:
        lines = [line.strip() for line in data.decode().splitlines()]
    except UnicodeDecodeError as error:
        raise CredentialsError(f"API key file {path} is not UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.startswith("#") and not (line.isascii() and line.isprintable()):
            raise CredentialsError(
                f"API key file {path}, line {number}: a key is printable ASCII without spaces"
            )
        if not line.startswith("#") and " " in line:
            raise CredentialsError(f"API key file {path}, line {number}: one key a line")
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise CredentialsError(f"API key file {path} holds no key; write one a line")
    return Keys(tuple(_digest(key) for key in keys))


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{what} {path} cannot be read: {error.strerror}") from error


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
