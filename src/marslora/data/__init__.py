"""Examples in any common format, nested subsets, batches with label masks."""
