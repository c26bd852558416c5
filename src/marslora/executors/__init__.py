"""Where specs are run: in this process or in several. Each file is an executor, named by ``--executor``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
