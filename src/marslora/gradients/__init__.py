"""Gradients of several objectives in, one out.

`SeparateGradients` is what a training loop uses; a combiner only sees inner products and answers with weights.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
