"""lipverify: checks certificates of local Lipschitz constants (docs/certificates.md). Needs numpy, shares nothing.

It reads a network, a box, a norm and a proof, derives both ends of the interval anew and says what it proves. It is
meant to be read: numbers.py (arithmetic), network.py (and what is asked of it), forward.py (bounds before kinks),
backward.py (bounds on gradients), quadratic.py (semidefinite bounds), tree.py (case distinctions), lower.py (points),
check.py.
"""

__version__ = "0.2.0"
