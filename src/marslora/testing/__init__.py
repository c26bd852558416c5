"""Reference implementations and contract tests, also for plugins written outside this package.

A contract is a class of tests that states what every plugin of its kind promises. Subclass it in a test file of your
own, return your plugin from its fixture, and pytest runs the rest (``pip install marslora[testing]``)::

    import pytest
    from marslora.testing import StrategyContract
    from mypackage.strategies import MyStrategy

    class TestMyStrategy(StrategyContract):
        @pytest.fixture
        def strategy(self):
            return MyStrategy()

`Solo` trains one member with PEFT's own layers in a plain loop: the slow reference of the packed engine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
