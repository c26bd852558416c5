"""A decision as settings of other tools."""
