"""Fit scaling laws to what was measured, with intervals that say how sure they are.

- Law-C (`ConvergenceLaw`): examples until a part has converged, against its rank and the number of rows.
- Law-P (`PerformanceLaw`): loss of an allocation against the ranks of its parts and the examples seen.
- The joint law (`marslora.laws.joint`): one curve for all allocations, each at its own speed. `mars` decides by it.

The first two are an `AbstractLaw`: points in, a `marslora.core.decision.LawFit` out, which predicts and is written to
JSON. A `Form` is a formula that is linear in its coefficients, given a few exponents. A fit never raises on bad
measurements; its status is ``converged``, ``unidentified`` or ``failed``, with a message. The joint law takes curves
and gives draws of final losses. Strategies use these laws directly; laws are not plugins and cannot be named.

Law-C of a part whose time to converge falls with the square root of its rank::

    from marslora.core.decision import LawPoint
    from marslora.laws import ConvergenceLaw

    def make_point(rank):
        inputs = {"rank": rank, "data": 1000}
        return LawPoint(run=f"rank{rank}", inputs=inputs, measured=900 * rank**-0.5, predicted=float("nan"))

    law = ConvergenceLaw()
    fit = law.fit([make_point(rank) for rank in (2, 4, 8, 16, 32)], "vision")
    examples = law.predict(fit, {"rank": 64, "data": 1000})
    print(fit.form, round(examples, 1))  # T = E + A (rank/8)^-alpha 112.5

A law of your own is an `AbstractLaw` with its forms and `fit_usable`; ``benchmarks/laws_in_data.py`` has two.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
