"""Run specs in this process, in several, or on a cluster. Each file is an executor, named by ``--executor``.

- A *spec* is a record that describes one piece of work, e.g. a pack of runs.
- The *work* is named ``package.module:function``, because another process must be able to import it.
- An executor calls the function once for each spec and passes on every event that the function emits.

An executor of your own is named ``package.module:Class``. This one prints how much it runs::

    from marslora.executors.inline import Inline

    class Announcing(Inline):
        def run(self, work, specs, emit):
            print(f"{len(specs)} specs for {work}")
            super().run(work, specs, emit)

`marslora.testing.ExecutorContract` holds the tests that it must pass.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
