"""``lipverify FILE [MODEL] [--exact]``."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import time

import numpy as np

from lipverify.certificate import Malformed, opened, read
from lipverify.check import check
from lipverify.network import Network
from lipverify.numbers import Array


def differs(network: Network, path: str) -> str | None:
    """Where a network differs from layers ``W0, b0, W1, ...`` of an ``.npz`` file; None if nowhere."""
    wanted: list[tuple[tuple[int, ...], tuple[Array, ...]]] = []
    with opened(path, f"model of layers W0, b0, ... (other formats: lipcompare certificate FILE {path})") as file:
        for k in range(max(1, sum(re.fullmatch(r"W\d+", name) is not None for name in file.files))):
            wanted += [((2 * k,), (file[f"W{k}"], file[f"b{k}"])), ((2 * k + 1,), (np.zeros(len(file[f"b{k}"])),))]
    own = [(node.parents, node.numbers) for node in network.nodes]
    for number, (mine, other) in enumerate(itertools.zip_longest(own, wanted[:-1]), 1):
        if mine is None or other is None or mine[0] != other[0] or not all(map(np.array_equal, mine[1], other[1])):
            return f"node {number} is not as in the model"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 every claim is met, 1 something is refused, 2 the file cannot be read."""
    parser = argparse.ArgumentParser(prog="lipverify", description="Check a certificate of local Lipschitz constants.")
    parser.add_argument("certificate", help="what `lipcompare bound ... --certificate FILE` wrote")
    parser.add_argument("model", nargs="?", help=".npz with W0, b0, W1, b1, ...: the network must equal this one")
    parser.add_argument("--exact", action="store_true", help="rational arithmetic instead of doubles with error bounds")
    started, options = time.perf_counter(), parser.parse_args(arguments)
    try:
        certificate = read(options.certificate)
        reason = differs(certificate.question.network, options.model) if options.model else None
    except Malformed as error:
        print(f"REFUSED: {error}", file=sys.stderr)
        return 2
    if reason:
        print(f"REFUSED: the certificate's network is not that of {options.model}: {reason}")
        return 1
    asked, network = certificate.question, certificate.question.network
    print(f"network: {network.inputs} inputs, {network.gates} neurons, {network.size(network.last)} outputs")
    low, high = (", ".join(map(repr, v[:4].tolist())) + ", ..." * (len(v) > 4) for v in (asked.lower, asked.upper))
    print(f"box: from ({low}) to ({high}); norm l_{asked.norm} on the input")
    print(f"question {certificate.digest} (network, box, functionals and norm, number by number)")
    results = check(certificate, exact=options.exact)
    for number, found in enumerate(results):
        print(f"row {number}: [{found.lower!r}, {found.upper!r}]" + (" REFUSED" if found.failures else ""))
    largest = max(found.lower for found in results), max(found.upper for found in results)
    how = "exactly" if options.exact else "in doubles with error bounds"
    print(f"largest row: {list(largest)}, {how}, {time.perf_counter() - started:.1f} s")
    failures = [text for found in results for text in found.failures]
    if failures:
        print(f"REFUSED: {failures[0]}" + (f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""))
    return 1 if failures else 0
