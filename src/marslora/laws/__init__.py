"""Curves in, fitted laws with honest uncertainty out."""
