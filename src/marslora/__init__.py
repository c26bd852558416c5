"""Find the LoRA ranks your multimodal model needs, before you pay for them."""

import lazy_loader

__version__ = "0.1.0"
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
