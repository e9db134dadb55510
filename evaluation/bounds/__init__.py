"""Do the bounds hold, and how tight are they? Random triples, digits, and trained encoders."""
