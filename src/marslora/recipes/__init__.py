"""Published methods as combinations of plugins, with the paper's settings. Named by ``marslora compare --method``.

Each file holds one function of the same name, which returns a `marslora.core.comparison.Recipe`. A function from
elsewhere is named ``package.module:function``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
