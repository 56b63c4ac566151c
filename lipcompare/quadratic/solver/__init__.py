"""The interior point method of the quadratic-gate relaxation, and the certificate of its bounds."""
