"""A search on disk: the same search comes back, for its own problem, whatever happens to the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nets
import numpy as np
import pytest

from lipcompare import InvalidInput, Norm
from lipcompare.branching import state
from lipcompare.branching.driver import Search
from lipcompare.branching.state import Checkpoint, fingerprint, load, save
from lipcompare.branching.tree import Subdomain
from lipcompare.result import Witness


def made() -> Search:
    search = Search.start([5.0, np.inf, 3.0])
    search.waiting = [
        (Subdomain(4.0, 0, (3, 5), inherited=b"ab"), Subdomain(1.0, 1, (3, 5))),
        (Subdomain(2.0, 2),),
    ]
    search.queue.push((Subdomain(6.0, 1, (1,), chain=(4, 7), closed=True),))
    search.closed = np.array([0.5, 0.0, 1.5])
    search.nodes = 12
    search.attained.note(Witness(1, 2.5, np.array([0.1, 0.2])))
    search.attained.note(Witness(2, 1.25, np.array([0.3, 0.4]), np.array([0.0, 1.0, 0.5])))
    return search


def test_everything_comes_back(tmp_path: Path) -> None:
    search, path = made(), tmp_path / "state.npz"
    save(search, path, "key")
    again = load(path, "key")
    assert again.upper == search.upper == 6.0 and again.best == search.best == 2.5 and again.nodes == 12
    assert again.closed.tolist() == [0.5, 0.0, 1.5] and (again.row_upper() == search.row_upper()).all()
    assert sorted(again.waiting, key=lambda group: group[0].row) == search.waiting
    assert again.queue.peek() == search.queue.peek()
    for row, witness in search.attained.witnesses.items():
        other = again.attained.witnesses[row]
        assert other.value == witness.value and (other.point == witness.point).all()
        assert (other.slopes is None) == (witness.slopes is None)
    assert again.attained.witnesses[2].slopes is not None
    assert again.attained.witnesses[2].slopes.tolist() == [0.0, 1.0, 0.5]


def test_the_file_that_was_there_is_not_written_into(tmp_path: Path) -> None:
    """It is replaced as a whole: under another name it is still what it was."""
    path, other = tmp_path / "state.npz", tmp_path / "other.npz"
    search = made()
    save(search, path, "key")
    other.hardlink_to(path)
    search.nodes = 13
    save(search, path, "key")
    assert load(path, "key").nodes == 13 and load(other, "key").nodes == 12
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other.npz", "state.npz"]


def test_a_search_without_witnesses_or_subdomains(tmp_path: Path) -> None:
    search = Search.start([1.0])
    search.waiting = []
    save(search, tmp_path / "empty.npz", "key")
    assert load(tmp_path / "empty.npz", "key").upper == 0.0


def test_another_problem_version_or_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.npz"
    save(made(), path, "key")
    with pytest.raises(InvalidInput, match="belongs to another problem"):
        load(path, "other")
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[:200], whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(InvalidInput, match="not a saved search"):
            load(path, "key")
    np.savez(path, nothing=np.zeros(1))
    with pytest.raises(InvalidInput, match="not a saved search"):
        load(path, "key")
    path.write_bytes(whole)
    monkeypatch.setattr(state, "_VERSION", 99)
    with pytest.raises(InvalidInput, match="written by another version"):
        load(path, "key")


def test_a_crash_while_saving_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search, path = made(), tmp_path / "state.npz"
    save(search, path, "key")
    search.nodes = 99

    def crash(file: object, **arrays: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "savez", crash)
    with pytest.raises(OSError, match="full"):
        save(search, path, "key")
    assert load(path, "key").nodes == 12


def test_checkpoints_are_not_written_more_often_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    never, always = Checkpoint(path, "key", every=1e6), Checkpoint(path, "key", every=0.0)
    never(made())
    assert not path.exists()
    always(made())
    assert load(path, "key").nodes == 12


def test_a_fingerprint_tells_questions_apart() -> None:
    problem = nets.problem(nets.dense(0), 0.1)
    other_box = dataclasses.replace(problem, box=nets.problem(problem.network, 0.2).box)
    others = [
        nets.problem(nets.dense(1), 0.1),
        other_box,
        dataclasses.replace(problem, norm=Norm.TWO),
        dataclasses.replace(problem, functionals=2 * problem.functionals),
    ]
    prints = [fingerprint(p) for p in (problem, *others)]
    assert len(set(prints)) == 5
    assert fingerprint(nets.problem(nets.dense(0), 0.1)) == prints[0]
