import pytest

from tests.unit.report import worlds


@pytest.fixture(scope="session", params=sorted(worlds.WORLDS))
def data(request):
    """Each of the worlds in turn."""
    return worlds.made(request.param)


@pytest.fixture(scope="session")
def clear():
    """Two parts, a clear verdict, a final run and a uniform baseline."""
    return worlds.made("clear")
