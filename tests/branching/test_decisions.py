"""Decisions as numbers, against plain loops."""

from __future__ import annotations

import nets
import numpy as np
import torch

from lipcompare.branching.decisions import Numbering
from lipcompare.network import Interval


def test_boxes_are_halved_in_the_order_of_the_decisions() -> None:
    numbering = Numbering(nets.dense(0, (3, 5, 2)))
    first = 2 * numbering.count
    box = Interval(torch.tensor([0.0, 0.0, -8.0]).double(), torch.tensor([1.0, 4.0, 8.0]).double())
    # Input j's lower half is first + 2 j, its upper half one more; gates in between do not matter.
    made = [np.array([first, 3, first + 1, first + 5]), np.array([], dtype=np.int64), np.array([first + 3] * 3)]
    lower, upper = numbering.boxes(made, box)
    assert lower.tolist() == [[0.25, 0, 0], [0, 0, -8], [0, 3.5, -8]]
    assert upper.tolist() == [[0.5, 4, 8], [1, 4, 8], [1, 4, 8]]


def test_signs_of_gates_and_entries() -> None:
    network = nets.dense(0, (3, 5, 4, 2))
    numbering = Numbering(network)
    first, second = network.activations
    entries = 2 * numbering.gates
    # Gate 1 on, gate 6 (the second layer's second) off; entry 2 not negative; a halving, which is no sign.
    made = [np.array([3, 12, entries + 5, 2 * numbering.count]), np.array([], dtype=np.int64)]
    gates, signs = numbering.signs(made)
    assert gates[first].tolist() == [[0, 1, 0, 0, 0], [0] * 5]
    assert gates[second].tolist() == [[0, -1, 0, 0], [0] * 4]
    assert signs.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert numbering.node_of.tolist() == [first] * 5 + [second] * 4 and numbering.start == {first: 0, second: 5}
    assert numbering.layer_of.tolist() == [0] * 5 + [1] * 4
    flat = torch.arange(18).reshape(2, 9)
    assert torch.equal(numbering.join(numbering.split(flat)), flat)
