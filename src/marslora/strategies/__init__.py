"""What to measure next, what to drop, what to pick and why."""
