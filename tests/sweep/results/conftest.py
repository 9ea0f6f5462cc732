from tests.analysis.conftest import task, trained  # noqa: F401 - fixtures
