"""VibeVoice: its two speech tokenizers are audio towers that do not declare what they read."""

PATHS = {"audio": ("model.acoustic_tokenizer_encoder", "model.semantic_tokenizer_encoder")}
