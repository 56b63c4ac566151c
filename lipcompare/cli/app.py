"""The command line: what each command is called, takes and says of itself.

What the commands do is in ``cli/commands``, which is loaded when one runs: ``--help``, ``--version`` and a wrong path
answer without torch.
"""

from __future__ import annotations

from typing import Annotated

import typer

from lipcompare.cli.asked import (
    BoundOptions,
    CertificateOptions,
    CertifyOptions,
    CompareOptions,
    JacobianOptions,
    MethodsOptions,
    MonotoneOptions,
    OperatorNormOptions,
    PlotOptions,
    ReportOptions,
    ResultsOptions,
)
from lipcompare.cli.options import EXIT_CODES, takes

_STORE_INTERRUPTED = "Interrupted; run the command again."
_STORE_CODES = """[bold]Exit codes[/bold]

  0  done
  2  bad input; one sentence on stderr says what to change
130  interrupted"""

_SAME_CODES = """[bold]Exit codes[/bold]

  0  the networks are equal
  1  they differ; where, is printed
  2  bad input; one sentence on stderr says what to change"""

_LIST_CODES = """[bold]Exit codes[/bold]

  0  done
  2  there is no such method"""

app = typer.Typer(
    name="lipcompare",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)


def _version(wanted: bool) -> None:
    if wanted:
        from lipcompare import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Certified local Lipschitz constants of trained networks: how fast can the output change near an input?

    Start with [bold]lipcompare bound MODEL --center 0.5 --eps 0.1[/bold]
    """


@app.command(epilog=EXIT_CODES)
@takes(BoundOptions)
def bound(given: BoundOptions) -> None:
    """Bound the local Lipschitz constant of a network on a box of inputs (or a ball, or everywhere).

    Every number printed is proved: "at least" by a point that was checked,
    "at most" by the method. "-" says that nothing is proved on that side.

    [bold]Examples[/bold]

    lipcompare bound net.onnx --center 0.5 --eps 0.1
    lipcompare bound net.onnx -i images.npy --scale 255 --eps 8/255 --clip 0,1
    lipcompare bound net.onnx --lower 0 --upper 1 --norm 2 --method lbp --json
    lipcompare bound net.onnx --vnnlib box.vnnlib --functional margins:3
    lipcompare bound net.onnx --center 0.5 --eps 1 --ball 2 --norm 2
    lipcompare bound net.onnx --everywhere --norm 2
    """
    from lipcompare.cli.commands import bounds

    bounds.bound(given)


@app.command(epilog=EXIT_CODES)
@takes(CompareOptions)
def compare(given: CompareOptions) -> None:
    """Run several methods on the same boxes and set their results side by side.

    A method that does not apply keeps its line and says why. The exit code is 0
    if any method proved something.

    [bold]Examples[/bold]

    lipcompare compare net.onnx --center 0.5 --eps 0.1
    lipcompare compare net.onnx -i images.npy -e 2/255 --methods lbp,attack
    lipcompare compare net.npz --center 0.5 -e 0.1 --csv out.csv --plot out.png
    """
    from lipcompare.cli.commands import bounds

    bounds.compare(given)


@app.command(epilog=_LIST_CODES)
@takes(MethodsOptions)
def methods(given: MethodsOptions) -> None:
    """List the methods: what each proves, for which norms, and where it comes from; or explain one with its options.

    [bold]Examples[/bold]

    lipcompare methods
    lipcompare methods sdp
    lipcompare methods --json
    """
    from lipcompare.cli.commands import registries

    registries.methods(given)


@app.command()
def solvers() -> None:
    """List the optimisation solvers: which are there, their licences, and what each can do."""
    from lipcompare.cli.commands import registries

    registries.solvers()


@app.command()
def operations() -> None:
    """List the operations that a model may consist of, as ONNX and as torch call them."""
    from lipcompare.cli.commands import registries

    registries.operations()


@app.command(epilog=EXIT_CODES)
@takes(JacobianOptions)
def jacobian(given: JacobianOptions) -> None:
    """Bound every entry of the Jacobian over a box, or its products with given directions.

    Entry (i, j) is the derivative of functional i in input j. A sign that is
    proved says whether the functional rises or falls in that input.

    [bold]Examples[/bold]

    lipcompare jacobian net.onnx --center 0.5 --eps 0.1
    lipcompare jacobian net.onnx -i x.npy -e 8/255 -f margins:3 --out entries.npz
    lipcompare jacobian net.onnx --center 0.5 -e 0.1 --direction d.npy --json
    """
    from lipcompare.cli.commands import questions

    questions.jacobian(given)


@app.command(epilog=EXIT_CODES)
@takes(MonotoneOptions)
def monotone(given: MonotoneOptions) -> None:
    """Decide whether each functional is monotone in the chosen inputs over a box.

    Four answers: proved increasing, proved decreasing, neither (with two points
    where the derivative has opposite signs), or undecided.

    [bold]Examples[/bold]

    lipcompare monotone net.onnx --features 0,3 --lower 0 --upper 1
    lipcompare monotone net.onnx --features 0:6 -i rows.npy -e 0.1 --out answer.npz
    """
    from lipcompare.cli.commands import questions

    questions.monotone(given)


@app.command(epilog=EXIT_CODES)
@takes(CertifyOptions)
def certify(given: CertifyOptions) -> None:
    """Certify radii within which the network's class does not change.

    Two routes, of which the larger radius wins: lower bounds of the margins
    (label's output minus another) by the forward pass, and their Lipschitz
    constants: if L bounds the gradient over a ball of radius r, no input within
    min(r, margin / L) has the other class.

    [bold]Examples[/bold]

    lipcompare certify net.onnx -i images.npy --scale 255 --clip 0,1
    lipcompare certify net.onnx -i images.npy --labels y.npy --at 8/255
    lipcompare certify net.onnx -i x.npy --label 3 --target 5 --norm 2
    lipcompare certify net.onnx --center 0.5 --method exact
    """
    from lipcompare.cli.commands import questions

    questions.certify(given)


@app.command(name="operator-norm", epilog=EXIT_CODES)
@takes(OperatorNormOptions)
def operator_norm(given: OperatorNormOptions) -> None:
    """Bound the operator norm p -> p of the whole Jacobian: the Lipschitz constant with the same norm on both sides.

    For p = inf it is the largest l_1 norm of a row of the Jacobian, for p = 1 of
    a column, for p = 2 its largest singular value, each over all the inputs.

    [bold]Examples[/bold]

    lipcompare operator-norm net.onnx --center 0.5 --eps 0.1 --norm 2
    lipcompare operator-norm net.npz --lower 0 --upper 1 --norm 1 --method lipbab
    """
    from lipcompare.cli.commands import questions

    questions.operator_norm(given)


@app.command(epilog=_SAME_CODES)
@takes(CertificateOptions)
def certificate(given: CertificateOptions) -> None:
    """Compare a certificate's own copy of the network with a model, number by number.

    [bold]lipverify[/bold] checks what a certificate proves, about the network in it. This says
    whether that network is the one in your file, of any format that can be read.

    [bold]Examples[/bold]

    lipcompare bound net.onnx --center 0.5 --eps 0.1 --certificate proof.npz
    lipverify proof.npz
    lipcompare certificate proof.npz net.onnx
    """
    from lipcompare.cli.commands import bounds

    bounds.certificate(given)


@app.command(epilog=_STORE_CODES)
@takes(ResultsOptions, interrupted=_STORE_INTERRUPTED)
def results(given: ResultsOptions) -> None:
    """List, filter, export and import the rows of a results store.

    A cell is one problem put to one method. Every number shown is proved; "-"
    says that nothing is, and the status says in words why a method stopped.

    [bold]Examples[/bold]

    lipcompare results results.sqlite
    lipcompare results results.sqlite --study images --method sdp --method lbp
    lipcompare results results.sqlite --status time_limit --status crashed
    lipcompare results results.sqlite --study images --export images.csv
    lipcompare results results.sqlite --trace --export trace.parquet
    lipcompare results results.sqlite -s images -k example=3 -m LipMIP --forget
    lipcompare results new.sqlite --import images.csv
    """
    from lipcompare.cli.commands import store

    store.results(given)


@app.command(epilog=_STORE_CODES)
@takes(ReportOptions, interrupted=_STORE_INTERRUPTED)
def report(given: ReportOptions) -> None:
    """Write a results store down as one web page.

    The page needs no network: what ran where, tables with the best values
    marked, pictures, and why each cell that did not finish stopped. The raw
    rows lie beside it as CSV files.

    [bold]Examples[/bold]

    lipcompare report results.sqlite
    lipcompare report results.sqlite -o results/report
    """
    from lipcompare.cli.commands import store

    store.report(given)


@app.command(epilog=_STORE_CODES)
@takes(PlotOptions, interrupted=_STORE_INTERRUPTED)
def plot(given: PlotOptions) -> None:
    """Draw one picture of a results store.

    [bold]Kinds[/bold]

    values     the interval that each method proves, and its time
    sweep      value and time against width, depth or radius
    pareto     tightness against time, all problems
    profile    share of the problems solved to a gap, against time
    traces     the interval of each method over time
    statuses   how the cells of each method ended

    [bold]Examples[/bold]

    lipcompare plot results.sqlite -o pareto.pdf
    lipcompare plot results.sqlite --kind sweep --study tiny_width -o width.svg
    lipcompare plot results.sqlite --kind values -k width=32 -s tiny_width -o w.png
    lipcompare plot results.sqlite --kind traces -m LipMIP -m bab -o traces.png
    """
    from lipcompare.cli.commands import store

    store.plot(given)
