"""Methods trained on the same rows, seeds and budget, side by side."""
