"""A decision as other tools' settings: one kind per tool."""
