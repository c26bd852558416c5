"""A study on disk: a folder of JSON artifacts and an Optuna storage of runs, from which an interrupted study continues.

`marslora.store.study` explains what the folder holds, when each part of it is durable, and who may write it.
"""
