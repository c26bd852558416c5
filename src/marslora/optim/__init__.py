"""Optimizers: gradients in, updates out, each member of a pack for itself."""
