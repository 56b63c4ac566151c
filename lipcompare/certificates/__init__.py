"""Certificates: proofs of both ends of a result, in a file that ``lipverify`` checks (docs/certificates.md)."""

from lipcompare.certificates.checked import Checked, checked
from lipcompare.certificates.file import differs
from lipcompare.certificates.write import Summary, check_covered, write_certificate

__all__ = ["Checked", "Summary", "check_covered", "checked", "differs", "write_certificate"]
