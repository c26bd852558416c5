"""Published methods as combinations of plugins, with the paper's settings. Named by ``marslora compare --method``.

Each file holds one function of the same name, which returns a `marslora.core.comparison.Recipe`: the ranks, the
training options that make the method, and defaults that the user may overrule. A function from elsewhere is named
``package.module:function``. This one trains DoRA at rank 8::

    from marslora.core.comparison import Recipe

    def small_dora() -> Recipe:
        return Recipe(
            source="Liu et al. 2024, arXiv 2402.09353",
            ranks=8,
            training={"adapter": {"name": "lora", "options": {"use_dora": True}}},
            defaults={"learning_rate": 2e-4},
        )
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
