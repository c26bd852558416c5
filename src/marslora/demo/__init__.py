"""The embedded model, its tasks and the settings of a study of them: everything that `marslora demo` needs."""
