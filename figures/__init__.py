"""One script per figure of the study, python -m figures.NAME; python -m figures draws all. They compute nothing."""
