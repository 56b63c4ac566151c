"""The study: one script per table or figure, run from the checkout with ``python -m experiments.<name>``."""
