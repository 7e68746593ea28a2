"""A throw-away certificate for loopback, made with what is installed anyway: pycryptodome, by python-binance."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from Crypto.Hash import SHA256
from Crypto.PublicKey import ECC
from Crypto.Signature import DSS
from Crypto.Util.asn1 import DerBitString, DerInteger, DerObject, DerObjectId, DerOctetString, DerSequence

_ECDSA_SHA256 = "1.2.840.10045.4.3.2"
_COMMON_NAME = "2.5.4.3"
_SUBJECT_ALT_NAME = "2.5.29.17"
_BASIC_CONSTRAINTS = "2.5.29.19"
_KEY_USAGE = "2.5.29.15"
_SUBJECT_KEY_ID = "2.5.29.14"
_AUTHORITY_KEY_ID = "2.5.29.35"


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1 and its key; return both paths (PEM)."""
    key = ECC.generate(curve="P-256")
    algorithm = DerSequence([DerObjectId(_ECDSA_SHA256)])
    name = DerSequence([_set(DerSequence([DerObjectId(_COMMON_NAME), _tagged(0x0C, b"127.0.0.1")]))])
    now = datetime.now(UTC)
    validity = DerSequence([_time(now - timedelta(days=1)), _time(now + timedelta(days=2))])
    alternative = DerSequence([_tagged(0x87, bytes([127, 0, 0, 1]))])
    authority = DerSequence([_tagged(0x01, b"\xff")])
    public = key.public_key().export_key(format="DER")
    key_id = SHA256.new(public).digest()[:20]
    # Strict checking (Python 3.13) wants the key ids and the usage too.
    extensions = DerSequence(
        [
            DerSequence([DerObjectId(_SUBJECT_ALT_NAME), DerOctetString(alternative.encode())]),
            DerSequence([DerObjectId(_BASIC_CONSTRAINTS), _tagged(0x01, b"\xff"), DerOctetString(authority.encode())]),
            DerSequence([DerObjectId(_KEY_USAGE), DerOctetString(DerBitString(b"\x86").encode())]),
            DerSequence([DerObjectId(_SUBJECT_KEY_ID), DerOctetString(DerOctetString(key_id).encode())]),
            DerSequence(
                [
                    DerObjectId(_AUTHORITY_KEY_ID),
                    DerOctetString(DerSequence([_tagged(0x80, key_id)]).encode()),
                ]
            ),
        ]
    )
    to_sign = DerSequence(
        [
            _tagged(0xA0, DerInteger(2).encode()),
            DerInteger(int(now.timestamp())),
            algorithm,
            name,
            validity,
            name,
            _raw(public),
            _tagged(0xA3, extensions.encode()),
        ]
    ).encode()
    signature = DSS.new(key, "fips-186-3", encoding="der").sign(SHA256.new(to_sign))
    certificate = DerSequence([_raw(to_sign), algorithm, DerBitString(signature)]).encode()
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_text(_pem(certificate))
    key_file.write_text(key.export_key(format="PEM"))
    return cert_file, key_file


def _pem(der: bytes) -> str:
    from base64 import encodebytes

    return f"-----BEGIN CERTIFICATE-----\n{encodebytes(der).decode()}-----END CERTIFICATE-----\n"


def _raw(encoded: bytes) -> DerObject:
    found = DerObject()
    found.decode(encoded)
    found.encode = lambda: encoded
    return found


def _tagged(tag: int, payload: bytes) -> DerObject:
    made = DerObject()
    made._tag_octet = tag
    made.payload = payload
    return made


def _set(item: DerSequence) -> DerObject:
    return _tagged(0x31, item.encode())


def _time(instant: datetime) -> DerObject:
    return _tagged(0x17, instant.strftime("%y%m%d%H%M%SZ").encode())
