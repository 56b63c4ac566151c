"""Processes beside this one, which talk to it by pickles over their standard streams: both ends of that."""
