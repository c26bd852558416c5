"""Pages and charts from a study."""
