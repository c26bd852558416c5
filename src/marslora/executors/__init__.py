"""Run specs somewhere."""
