"""Claims are told by the rows: what is for and what is against, over how many problems."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from figures.claims import Claim, Verdict, claims


def row(series: str, problem: str, upper: float, **changes: object) -> dict[str, object]:
    made = {
        "study": "tiny_width", "task": problem, "series": series, "problem_hash": problem, "network": "net",
        "neurons": 1234.0, "lower": 0.0, "upper": upper, "proves": "upper", "status": "complete", "seconds": 0.5,
        "time_limit": 60.0, "label.model": "mlp", "label.eps": 0.1,
    }  # fmt: skip
    return {**made, **changes}


def told(rows: Iterable[dict[str, object]], start: str) -> Claim:
    return next(claim for claim in claims(pd.DataFrame(list(rows))) if claim.text.startswith(start))


def test_tighter_on_every_problem() -> None:
    rows = [row("paper", p, 2.0) for p in "ab"] + [row("IBP", "a", 4.0, seconds=1.0), row("IBP", "b", 8.0)]
    claim = told(rows, "The paper's bound is tighter")
    assert claim.verdict is Verdict.IN_PART  # of the other three there are no cells
    others = [row(name, p, 9.0) for name in ("NaiveUB", "RecurJac", "LipSDP") for p in "ab"]
    assert told([*rows, *others], "The paper's bound is tighter").verdict is Verdict.HOLDS
    assert any(
        s.startswith("IBP is looser than paper on 2 of 2 problems, equal on 0, tighter on 0") and "2.828 times" in s
        and "(2 to 4)" in s and "time 1.4 times" in s for s in claim.sentences
    )  # fmt: skip
    assert "LipSDP: it and paper have no problem that both bounded." in claim.sentences


def test_a_problem_against_is_named() -> None:
    rows = [row("paper", p, 2.0) for p in "abc"] + [row("IBP", "a", 8.0), row("RecurJac", "c", 2.0 + 1e-9)]
    rows.append(row("IBP", "b", 1.0, status="time_limit", **{"label.model": "other", "label.eps": 0.3}))
    rows.append(row("IBP", "c", math.nan, status="out_of_memory"))
    rows[1]["label.model"], rows[1]["label.eps"] = "other", 0.3
    claim = told(rows, "The paper's bound is tighter")
    assert claim.verdict is Verdict.IN_PART
    said = next(s for s in claim.sentences if s.startswith("IBP"))
    assert "tighter on 1" in said and "It is tighter on other at 0.3 (by 100.00%)." in said
    assert "On 1 problem one of the two was cut short (those decide nothing)." in said
    assert "It bounded nothing on 1 problem more (out of memory 1)." in said
    assert any(s.startswith("RecurJac is looser than paper on 0 of 1 problem, equal on 1") for s in claim.sentences)


def test_what_was_cut_short_decides_nothing() -> None:
    """A method at its limit may hand on what another one had."""
    rows = [row(name, "a", 2.0) for name in ("paper", "LipLP")] + [row(n, "a", 4.0) for n in ("NaiveUB", "IBP")]
    rows += [row("RecurJac", "a", 3.0), row("LipSDP", "a", 4.0, status="time_limit")]
    assert told(rows, "The paper's bound is tighter").verdict is Verdict.IN_PART
    rows[1]["status"] = "time_limit"
    assert told(rows, "It is about as tight").verdict is Verdict.OPEN
    rows.append(row("bab", "a", 1.5, status="time_limit"))
    rows.append(row("paper, BaB", "a", 1.8, status="time_limit"))
    claim = told(rows, "New: branch and bound on it")
    assert claim.verdict is Verdict.HOLDS and "its value at the limit counts" in claim.sentences[0]


def test_a_problem_that_the_first_did_not_bound_counts() -> None:
    rows = [row("sdp", "a", 1.0), row("paper", "a", 2.0), row("paper", "b", 2.0)]
    rows.append(row("sdp", "b", math.inf, status="time_limit"))
    claim = told(rows, "New: the quadratic-gate bound")
    assert claim.verdict is Verdict.IN_PART
    assert "On 1 problem more it has a bound and sdp has none (time limit 1)." in claim.sentences[0]
    assert told(rows[2:], "New: the quadratic-gate bound").verdict is Verdict.FAILS


def test_a_constant_of_0_is_bounded() -> None:
    rows = [row("paper", "a", 0.0), row("IBP", "a", 0.0), row("paper", "b", 1.0), row("IBP", "b", 2.0)]
    said = next(s for s in told(rows, "The paper's bound is tighter").sentences if s.startswith("IBP"))
    assert said.startswith("IBP is looser than paper on 1 of 2 problems, equal on 1, tighter on 0")


def test_a_ratio_to_0_is_no_number_of_a_mean() -> None:
    rows = [row("paper", "a", 0.0), row("IBP", "a", 3.0)]
    claim = told(rows, "The paper's bound is tighter")
    said = next(s for s in claim.sentences if s.startswith("IBP"))
    assert said == "IBP is looser than paper on 1 of 1 problem, equal on 0, tighter on 0; its time 1 times."
    rows += [row("paper", "b", 1.0), row("IBP", "b", 2.0)]
    said = next(s for s in told(rows, "The paper's bound is tighter").sentences if s.startswith("IBP"))
    assert "2 times that of paper in the geometric mean (2 to 2), where neither is 0, as one is on 1 problem, " in said


def test_as_tight_as_the_linear_program() -> None:
    rows = [row("LipLP", "a", 1.0, seconds=5.0), row("paper", "a", 1.09)]
    assert told(rows, "It is about as tight").verdict is Verdict.HOLDS
    rows += [row("LipLP", "b", 1.0, seconds=5.0), row("paper", "b", 1.101)]
    assert told(rows, "It is about as tight").verdict is Verdict.IN_PART
    slow = [{**r, "seconds": 9.0} if r["series"] == "paper" else r for r in rows]
    assert told(slow, "It is about as tight").verdict is Verdict.FAILS


def test_close_to_the_exact_constant() -> None:
    rows = [row("paper", "a", 1.05), row("paper", "b", 1.5), row("paper", "c", 9.0)]
    rows += [row("LipMIP", p, 1.0, lower=1.0, status="exact", proves="exact") for p in "ab"]
    claim = told(rows, "The paper's bound is close")
    assert claim.verdict is Verdict.IN_PART
    assert claim.sentences[0].startswith(
        "Exact constants are known of 2 of 3 problems; the paper's bound is within 10% on 1"
    )
    assert "1.5 at worst" in claim.sentences[0]


def test_scaling_says_how_exact_methods_ended() -> None:
    cnn = {"label.model": "cnn_w8", "study": "images"}
    rows = [row("paper", p, 2.0, **cnn) for p in "ab"]
    rows += [row("LipMIP", p, math.nan, status="time_limit", seconds=60.0, **cnn) for p in "ab"]
    assert told(rows, "It bounds convolutional").verdict is Verdict.OPEN  # LipBaB was not run
    rows.append(row("LipBaB", "b", math.nan, status="out_of_memory", **cnn))
    claim = told(rows, "It bounds convolutional")
    assert claim.verdict is Verdict.HOLDS
    (sentence,) = claim.sentences
    assert sentence == (
        "cnn_w8 (1,234 neurons): paper bounds 2 of 2 problems in 0.5 s (median); LipMIP within 60 s: time limit 2; "
        "LipBaB within 60 s: out of memory 1."
    )
    crashed = [{**r, "status": "crashed"} if r["series"] == "LipMIP" else r for r in rows]
    assert told(crashed, "It bounds convolutional").verdict is Verdict.FAILS
    rows.append(row("LipBaB", "a", 2.0, lower=2.0, status="exact", **cnn))
    assert told(rows, "It bounds convolutional").verdict is Verdict.FAILS


def test_shares_proved_monotone() -> None:
    def answers(series: str, *said: str) -> list[dict[str, object]]:
        return [
            row(series, f"{k}", math.nan, study="monotonicity", **{"label.answer": a, "label.data": "adult"})
            for k, a in enumerate(said)
        ]

    rows = [*answers("lbp", "increasing", "decreasing"), *answers("ibp", "increasing", "undecided")]
    claim = told(rows, "More examples are proved monotone")
    assert claim.verdict is Verdict.HOLDS
    assert claim.sentences[0] == "adult, paper: increasing 50.0%, decreasing 50.0% of 2 questions, 0.5 s each."
    rows += answers("recurjac", "increasing", "decreasing", "increasing", "decreasing")[:2]
    unanswered = row("lbp", "9", math.nan, study="monotonicity", **{"label.answer": None, "label.data": "adult"})
    assert told([*rows, unanswered], "More examples are proved monotone").verdict is Verdict.IN_PART
    synthetic = [{**r, "label.data": "synthetic"} for r in rows]
    assert told(synthetic, "More examples are proved monotone").verdict is Verdict.OPEN
    rows = [*answers("lbp", "neither", "increasing"), *answers("ibp", "increasing", "undecided")]
    assert told(rows, "More examples are proved monotone").verdict is Verdict.FAILS


def test_a_contradiction_is_told() -> None:
    rows = [row("paper", "a", 1.0), row("attack", "a", math.nan, lower=2.0, proves="lower")]
    claim = told(rows, "New: both ends")
    assert claim.verdict is Verdict.FAILS and claim.sentences[-1].startswith("1 of 1 upper bounds are below")
    rows[1]["lower"] = 0.995
    assert told(rows, "New: both ends").verdict is Verdict.HOLDS
    rows.append(row("paper", "b", 1.0))
    claim = told(rows, "New: both ends")
    assert claim.verdict is Verdict.IN_PART and claim.sentences[0].startswith("1 of 2 problems have both ends.")


def test_operator_norms_are_above_the_constants_of_outputs_and_no_contradiction() -> None:
    rows = [row("paper", "a", 1.0), row("bab", "a", 2.1, lower=2.0, study="questions", **{"label.question": "norms"})]
    claim = told(rows, "New: both ends")
    assert claim.sentences[-1].startswith("0 of 2 upper bounds are below")
    rows.append(row("joint", "a", 1.5, study="questions", **{"label.question": "norms"}))
    claim = told(rows, "New: both ends")
    assert claim.verdict is Verdict.FAILS and claim.sentences[-1].startswith("1 of 3 upper bounds are below")


def test_nothing_was_run() -> None:
    found = claims(pd.DataFrame([row("attack", "a", math.nan, lower=1.0, proves="lower")]))
    assert {claim.verdict for claim in found} == {Verdict.OPEN} and all(claim.sentences for claim in found)
