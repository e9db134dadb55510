"""Does this repository keep its word? Results of its experiments, and what reads them."""
