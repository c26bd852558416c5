"""The nouns every room speaks: allocations, specs, runs, decisions, errors, kinds. No torch."""
