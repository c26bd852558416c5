"""Pages and pictures from a study."""
