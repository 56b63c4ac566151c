"""Programs from a network with its bounds: mixed-integer programs of the gradient, and LipSDP."""
