"""One server for all tests of a run. Greedy answers of the example model are known, so tests can say what must come."""

import pytest
import server

KEY = "a key for tests"


@pytest.fixture(scope="session")
def url():
    with server.serve("--api-key", KEY, "--served-model-name", "tiny", "--dtype", "f32") as started:
        yield started.url


@pytest.fixture(scope="session")
def key():
    return KEY
