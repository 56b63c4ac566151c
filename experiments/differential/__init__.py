"""Everything against everything, for hours; ``python -m experiments.differential --help`` says how."""
