"""Activation regions: where one pattern holds, a network is affine."""
