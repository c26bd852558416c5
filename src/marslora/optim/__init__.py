"""Optimizers: gradients in, updates out, each member of a pack for itself."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
