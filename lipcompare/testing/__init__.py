"""What tests of bounds need, also tests of a method of one's own: an exact oracle and problems that attack rounding."""
