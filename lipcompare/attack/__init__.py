"""Lower bounds: a search for points of large gradient norm, and over the activation patterns around them."""
