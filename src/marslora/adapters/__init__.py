"""Trainable changes to frozen linears, K members at once: one kind per file."""
