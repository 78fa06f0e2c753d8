"""One server for all tests of a run, and one that makes vectors for those that want it. Greedy answers of the example model
are known, so tests can say what must come."""

import pytest
import sentence_model
import server

KEY = "a key for tests"


@pytest.fixture(scope="session")
def url():
    with server.serve("--api-key", KEY, "--served-model-name", "tiny", "--dtype", "f32") as started:
        yield started.url


@pytest.fixture(scope="session")
def vectors_model(tmp_path_factory):
    return sentence_model.write(tmp_path_factory.mktemp("vectors"))


@pytest.fixture(scope="session")
def vectors_url(vectors_model):
    with server.serve("--api-key", KEY, "--served-model-name", "small", model=vectors_model) as started:
        yield started.url


@pytest.fixture(scope="session")
def key():
    return KEY
