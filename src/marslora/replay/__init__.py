"""Searches replayed on tables of finished runs: what a strategy would have found, and what it would have paid."""
