"""Papers' methods as combinations of plugins: one file each, named by ``--method``. Its function returns a `Recipe`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
