"""Trained networks as linear maps and elementwise activations."""

from lipcompare.network.activations import Activation, LeakyReLU, Lines, relu
from lipcompare.network.graph import Activate, Affine, Input, Network, Node
from lipcompare.network.interval import Interval

__all__ = ["Activate", "Activation", "Affine", "Input", "Interval", "LeakyReLU", "Lines", "Network", "Node", "relu"]
