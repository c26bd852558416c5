"""Methods trained on the same rows with the same seeds and budget, and compared side by side: ``marslora compare``."""
