"""The options of the command line, each declared once with the help that a user reads."""

from __future__ import annotations

from typing import Annotated

import typer

BOX, QUESTION, RUN, OUT = "The box", "The question", "The run", "The output"

EXIT_CODES = """[bold]Exit codes[/bold]

  0  something was proved
  1  a contradiction: a bug, please report it
  2  bad input
  3  an operation, method or solver that is not supported or not there
  4  out of memory
  5  an unexpected error: a bug too, please report it
130  interrupted or terminated; what was proved until then is printed"""

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A trained network: .onnx, .pt2 (torch.export.save), or .npz with W0, b0, W1, b1, ...",
        show_default=False,
    ),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        "-i",
        help="A .npy file with one input or a batch; boxes are placed around each.",
        rich_help_panel=BOX,
    ),
]
Center = Annotated[
    str | None,
    typer.Option(
        help="Instead: one number for every entry, numbers separated by commas, or a .npy file.", rich_help_panel=BOX
    ),
]
Eps = Annotated[
    str | None,
    typer.Option(
        "--eps", "-e", help="Radius of the box: 0.1, 8/255, or one per entry (numbers or .npy).", rich_help_panel=BOX
    ),
]
Lower = Annotated[
    str | None, typer.Option(help="Instead: lower corner of the box (number, numbers or .npy) ...", rich_help_panel=BOX)
]
Upper = Annotated[str | None, typer.Option(help="... and its upper corner.", rich_help_panel=BOX)]
Vnnlib = Annotated[
    str | None, typer.Option(help="Instead: the input box of a VNN-LIB file.", metavar="FILE", rich_help_panel=BOX)
]
Clip = Annotated[
    str | None, typer.Option(help="Cut the box with the range of valid inputs, such as 0,1.", rich_help_panel=BOX)
]
Ball = Annotated[
    str,
    typer.Option(
        help="Shape of the set around the input: inf (a box), or a ball of radius --eps in the norm 2 or 1.",
        rich_help_panel=BOX,
    ),
]
Everywhere = Annotated[
    bool, typer.Option("--everywhere", help="Instead: all inputs (a global constant).", rich_help_panel=BOX)
]
InputIndex = Annotated[
    str | None, typer.Option(help="Examples to take from a batch: 3, 0:10 or 0,3,7.", rich_help_panel=BOX)
]
Scale = Annotated[float, typer.Option(help="Divide --input by this: 255 turns bytes into 0..1.", rich_help_panel=BOX)]
InputShape = Annotated[
    str | None,
    typer.Option(help="Shape of one input, such as 1,28,28, for a model that does not say.", rich_help_panel=QUESTION),
]
Logits = Annotated[
    bool, typer.Option("--logits", help="Leave out a softmax at the model's end.", rich_help_panel=QUESTION)
]
NormName = Annotated[
    str, typer.Option("--norm", "-p", help="Norm on the input: inf, 2 or 1.", rich_help_panel=QUESTION)
]
Functional = Annotated[
    str,
    typer.Option(
        "--functional",
        "-f",
        help="What is differentiated: outputs; margins:LABEL (label's output minus each other; LABEL a number, one per "
        "example, or a .npy file); or a .npy matrix with a row per functional.",
        rich_help_panel=QUESTION,
    ),
]
MethodName = Annotated[
    str,
    typer.Option(
        "--method",
        "-m",
        help="A name that `lipcompare methods` lists; auto gives an interval.",
        rich_help_panel=RUN,
    ),
]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="An option of the method, name=value.", rich_help_panel=RUN),
]
TimeLimit = Annotated[
    float, typer.Option("--time-limit", "-t", help="Seconds per method; inf for none.", rich_help_panel=RUN)
]
Gap = Annotated[float, typer.Option(help="Relative gap at which an interval counts as exact.", rich_help_panel=RUN)]
Memory = Annotated[float, typer.Option(help="Working memory in GiB that batched passes respect.", rich_help_panel=RUN)]
Threads = Annotated[int, typer.Option(help="CPU threads; more pay off on large networks only.", rich_help_panel=RUN)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.", rich_help_panel=RUN)]
Dtype = Annotated[str, typer.Option(help="float64 or float32.", rich_help_panel=RUN)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.", rich_help_panel=OUT)]
