"""Two threads that ask one study for trials at the same time get different runs."""

import time
from concurrent.futures import ThreadPoolExecutor

from marslora.optuna import MarsSampler
from tests.unit.test_optuna import sampler, study


def test_two_threads_never_get_the_same_run(monkeypatch):
    pick = MarsSampler._pick_member

    def pick_slowly(self, asked):
        picked = pick(self, asked)
        time.sleep(0.05)
        return picked

    monkeypatch.setattr(MarsSampler, "_pick_member", pick_slowly)
    driver = sampler(budget=0.4)
    found = study(driver)
    with ThreadPoolExecutor(2) as threads:
        runs = list(threads.map(lambda _: driver.suggest(found.ask()), range(4)))
    assert len({tuple(run.ranks.values()) for run in runs}) == 4
