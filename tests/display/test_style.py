"""Looks of series: known methods have their own, variants keep the colour, no two of a kind are the same."""

from __future__ import annotations

from lipcompare.display.style import entitle, literal, looks, new_figure, ordered, paper_name, plain_log, style


def test_a_method_has_its_look_by_either_name_and_a_variant_its_colour() -> None:
    chosen = looks(["lbp", "sdp", "sdp, 3 rounds", "mine"])
    assert chosen["lbp"] == looks(["paper"])["paper"] and paper_name("lbp") == "paper"
    assert chosen["sdp, 3 rounds"].color == chosen["sdp"].color and chosen["sdp, 3 rounds"] != chosen["sdp"]


def test_many_series_differ() -> None:
    chosen = looks([f"s{k}" for k in range(30)])
    assert len({(look.color, look.marker, str(look.line), look.hollow) for look in chosen.values()}) == 30


def test_the_papers_order_comes_first() -> None:
    assert ordered(["mine", "bab", "naive", "lbp", "mine"]) == ["naive", "lbp", "bab", "mine"]


def test_names_begin_no_formula() -> None:
    assert literal("a$b\x00") == r"a\$b?"


def test_a_logarithmic_axis_has_plain_numbers() -> None:
    axes = new_figure(3, 2).subplots()
    axes.plot([1, 30], [1, 1])
    plain_log(axes, "x")
    assert axes.get_xscale() == "log" and axes.xaxis.get_major_formatter()(20.0, 0) == "20"


def test_a_narrow_axis_has_several_ticks() -> None:
    """Values from 1 to 1.6 have one multiple of a power of ten between them."""
    figure = new_figure(2.0, 2.0)
    axes = figure.subplots()
    axes.plot([1.01, 1.55], [1, 2])
    plain_log(axes, "x")
    low, high = axes.get_xlim()
    assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 3


def test_ones_own_series_look_like_no_method_beside_them() -> None:
    chosen = looks(["sdp", "paper", "milp", "mine", "yours", "milp(solver=pulp)"])
    assert chosen["milp(solver=pulp)"].color == chosen["milp"].color
    known = [chosen[name] for name in ("sdp", "paper", "milp")]
    for name in ("mine", "yours"):
        assert chosen[name].color not in {look.color for look in known}
        assert chosen[name].marker not in {look.marker for look in known}


def test_a_picture_is_drawn_as_it_was_made() -> None:
    """Ticks are made when it is drawn, which may be in a notebook, far from the settings."""
    with style():
        figure = new_figure(3, 2)
        axes = figure.subplots()
    axes.plot([0, 1], [0, 1])
    figure.draw_without_rendering()
    assert {label.get_fontsize() for label in axes.get_xticklabels()} == {7}


def test_titles_stay_within_the_picture() -> None:
    figure = new_figure(3.5, 4.0)
    figure.subplots()
    entitle(figure, "what it says " * 8, "how it was made " * 12)
    figure.draw_without_rendering()
    for text in (figure._suptitle, figure._supxlabel):
        assert text is not None and text.get_window_extent().x1 <= figure.bbox.x1
