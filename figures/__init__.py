"""One script per figure and table of the study: python -m figures.<name>. They read results and compute nothing."""
