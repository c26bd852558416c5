"""Low-rank changes to a frozen linear layer, K members at once."""
