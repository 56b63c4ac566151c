"""Subdomains evaluated side by side in several processes of one machine.

The tensors of a subdomain are so small that threads within an operator have nothing to share, and Python's own threads
wait for each other between operators. A search is faster by processes that each evaluate a part of a batch.
"""
