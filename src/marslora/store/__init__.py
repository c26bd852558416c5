"""A study on disk: a folder of JSON artifacts and an Optuna storage of runs, from which an interrupted study continues.

What the folder holds, what is durable when, and who may write it is said at the top of `marslora.store.study`.
"""
