"""``lipverify FILE [MODEL] [--exact]``."""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from lipverify.certificate import Certificate, Malformed, opened, read
from lipverify.check import check
from lipverify.network import Kink


def differs(certificate: Certificate, path: str) -> str | None:
    """Where the certificate's network differs from layers ``W0, b0, W1, ...`` of an ``.npz`` file; None if nowhere."""
    with opened(path) as file:
        layers = [(file[f"W{k}"], file[f"b{k}"]) for k in range(sum(n.startswith("W") for n in file.files))]
    nodes = certificate.network.nodes
    if len(nodes) != 2 * len(layers) - 1:
        return f"it has {len(nodes)} nodes, the model {len(layers)} layers"
    for k, node in enumerate(nodes):
        weight, bias = layers[k // 2]
        if isinstance(node, Kink):
            same = k % 2 == 1 and node.parent == k and not node.alpha.any()
        else:
            same = k % 2 == 0 and node.parents == (k,)
            same = same and np.array_equal(node.terms[0][1].matrix, weight) and np.array_equal(node.bias, bias)
        if not same:
            return f"node {k + 1} is not layer {k // 2} of the model"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 every claim is met, 1 something is refused, 2 the file cannot be read."""
    parser = argparse.ArgumentParser(prog="lipverify", description="Check a certificate of local Lipschitz constants.")
    parser.add_argument("certificate", help="what `lipcompare bound ... --certificate FILE` wrote")
    parser.add_argument("model", nargs="?", help=".npz with W0, b0, W1, b1, ...: the network must equal this one")
    parser.add_argument("--exact", action="store_true", help="rational arithmetic instead of doubles with error bounds")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        certificate = read(options.certificate)
        reason = differs(certificate, options.model) if options.model else None
    except Malformed as error:
        print(f"REFUSED: {error}", file=sys.stderr)
        return 2
    if reason:
        print(f"REFUSED: the certificate's network is not that of {options.model}: {reason}")
        return 1
    network, ends = certificate.network, (certificate.lower, certificate.upper)
    print(f"network: {network.inputs} inputs, {network.gates} neurons, {network.size(network.last)} outputs")
    few = [", ".join(map(repr, end[:4].tolist())) + (", ..." if len(end) > 4 else "") for end in ends]
    print(f"box: from ({few[0]}) to ({few[1]}); norm l_{certificate.norm} on the input")
    print(f"question {certificate.digest} (network, box, functionals and norm, number by number)")
    results = check(certificate, exact=options.exact)
    for number, found in enumerate(results):
        print(f"row {number}: [{found.lower!r}, {found.upper!r}]" + (" REFUSED" if found.failures else ""))
    low, high = max(r.lower for r in results), max(r.upper for r in results)
    how = "exactly" if options.exact else "in doubles with error bounds"
    print(f"largest row: [{low!r}, {high!r}], {how}, {time.perf_counter() - started:.1f} s")
    failures = [text for found in results for text in found.failures]
    if failures:
        print(f"REFUSED: {failures[0]}" + (f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""))
    return 1 if failures else 0
