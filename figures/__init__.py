"""One script per figure and table of the study: python -m figures NAME. They read results and compute nothing."""
