"""Open subdomains: how they are split, in which order they come, and that they survive the disk in little room."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from lipcompare.branching.tree import Queue, Subdomain, groups_of, parts_of


def test_children_cover_the_parent() -> None:
    node = Subdomain(1.0, 0, (2,), chain=(5, 7, 8))
    assert [c.decisions for c in node.children()] == [(2, 4), (2, 5, 6), (2, 5, 7, 9), (2, 5, 7, 8)]
    assert all(c.inherited == b"x" for c in Subdomain(1.0, 0, (), chain=(5, 7), inherited=b"x").children())
    closed = Subdomain(1.0, 0, (2,), chain=(5,), closed=True)
    assert [c.decisions for c in closed.children()] == [(2, 4)]
    assert all(c.upper == 1.0 and c.row == 0 and c.chain == () for c in node.children())


@pytest.mark.parametrize("closed", [False, True])
def test_every_choice_of_sides_is_in_exactly_one_child(closed: bool) -> None:
    node = Subdomain(1.0, 0, (), chain=(1, 2, 5), closed=closed)
    for sides in itertools.product((0, 1), repeat=3):
        inside = [all(sides[d >> 1] == d & 1 for d in child.decisions) for child in node.children()]
        # What the chain's last child holds is empty where it is closed.
        assert sum(inside) == (0 if closed and sides == (1, 0, 1) else 1)


def test_the_largest_bound_comes_first_and_equal_ones_in_order() -> None:
    queue = Queue(2)
    for number, upper in enumerate((1.0, 3.0, 2.0, 3.0)):
        queue.push((Subdomain(upper, number % 2, (number,)),))
    assert queue.upper == 3.0 and queue.row_upper().tolist() == [2.0, 3.0]
    order = []
    while len(queue):
        order.append(queue.peek()[0].decisions[0])
        queue.pop()
    assert order == [1, 3, 2, 0]
    assert queue.upper == 0.0 and queue.row_upper().tolist() == [0.0, 0.0] and queue.bytes == 0


@pytest.mark.parametrize("rows", [1, 5])
def test_a_million_open_subdomains_would_fit_in_four_gigabytes(rows: int) -> None:
    count, depth = 3_000, 60
    tracemalloc.start()
    queue = Queue(10 + rows)
    for i in range(count):
        made = tuple(range(i, i + depth))
        queue.push(
            tuple(Subdomain(1.0 + i, i % 10 + k, made, (7,), inherited=(i + k).to_bytes(100)) for k in range(rows))
        )
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(queue) == rows * count and used / len(queue) < 4 * 2**30 / 1e6
    assert used <= 1.2 * queue.bytes <= 1.5 * used


def test_the_queue_survives_the_disk() -> None:
    queue = Queue(3)
    random = np.random.default_rng(0)
    for _ in range(50):
        made = tuple(random.integers(0, 100, random.integers(0, 6)).tolist())
        closed, inherited = bool(random.random() < 0.5), random.bytes(random.integers(0, 4))
        rows = random.permutation(3)[: random.integers(1, 4)].tolist()
        queue.push(tuple(Subdomain(float(random.random()), row, made, (3,), closed, inherited) for row in rows))
    other = Queue.from_arrays(3, queue.to_arrays())
    assert (
        len(other) == len(queue) > 50 and (other.row_upper() == queue.row_upper()).all() and other.bytes == queue.bytes
    )
    while len(queue):
        assert queue.peek() == other.peek()
        queue.pop()
        other.pop()
    assert len(queue) == len(other) == queue.bytes == 0


def test_rows_that_share_a_subdomain_share_its_parts() -> None:
    group = tuple(Subdomain(1.0 + row, row, (2,), chain=(5, 7), inherited=bytes([row])) for row in range(3))
    parts = list(parts_of(group))
    assert [[node.decisions for node in part] for part in parts] == [[(2, 4)] * 3, [(2, 5, 6)] * 3, [(2, 5, 7)] * 3]
    for part in parts:
        assert [(n.row, n.upper, n.inherited) for n in part] == [(0, 1.0, b"\0"), (1, 2.0, b"\1"), (2, 3.0, b"\2")]
    assert groups_of([node for part in parts for node in part]) == parts
    queue = Queue(3)
    queue.push(group)
    assert queue.upper == 3.0 and queue.row_upper().tolist() == [1.0, 2.0, 3.0] and queue.peek() == group
