"""Train methods on the same rows with the same seeds and budget, and compare them: ``marslora compare``."""
