"""The nouns every room speaks: allocations, specs, runs, decisions, errors, kinds. Imports nothing of ours, no torch."""
