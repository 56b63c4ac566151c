"""One script per program, which its own interpreter runs; each imports its program alone, none lipcompare."""
