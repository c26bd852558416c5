"""A study on disk: resumable, behind one door."""
