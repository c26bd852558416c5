"""Combine the gradients of several objectives into one.

A training loop uses `SeparateGradients`. A combiner only sees inner products of the gradients and returns weights.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
