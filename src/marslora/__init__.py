"""Find the LoRA ranks your multimodal model needs, before you pay for them."""

__version__ = "0.1.0"
