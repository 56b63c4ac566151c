"""Networks from torch modules and exported programs."""
