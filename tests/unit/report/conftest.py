import pytest

from tests.unit.report import example_studies


@pytest.fixture(scope="session", params=sorted(example_studies.EXAMPLES))
def data(request):
    """Each of the example studies in turn."""
    return example_studies.make_example(request.param)


@pytest.fixture(scope="session")
def clear():
    """Two parts, a clear verdict, a final run and a uniform baseline."""
    return example_studies.make_example("clear")
