"""Elementwise activations: value, derivative, slope range and linear relaxation, one entry per activation."""

from lipcompare.network.activations.base import Activation, Lines
from lipcompare.network.activations.leaky import LeakyReLU, relu
from lipcompare.network.activations.smooth import Smooth

__all__ = ["Activation", "LeakyReLU", "Lines", "Smooth", "relu"]
