"""Train a pack and report what was seen."""
