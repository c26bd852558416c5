"""Muse Spark: the root does not declare that it reads audio."""

PATHS = {"audio": ("model.audio_tower",)}
