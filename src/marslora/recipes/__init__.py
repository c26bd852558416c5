"""Named studies as functions."""
