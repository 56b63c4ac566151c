"""Certificates: proofs of both ends of a result, in a file that ``lipverify`` checks (docs/certificates.md)."""

from lipcompare.certificates.write import write_certificate

__all__ = ["write_certificate"]
