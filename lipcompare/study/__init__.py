"""Studies: questions x methods under limits, run cell by cell, each in a process of its own."""
