"""Vectors through OpenAI's own client."""

import asyncio
import json
import math
import subprocess

import openai
import pytest
import server

TEXTS = ["w4", "w5 w6 w7", "w50 w60 w70 w80", " ".join(f"w{4 + at}" for at in range(60))]


@pytest.fixture(scope="module")
def client(vectors_url, key):
    return openai.OpenAI(base_url=f"{vectors_url}/v1", api_key=key, max_retries=0)


def vectors(client, given, **more):
    found = client.embeddings.create(model="small", input=given, **more)
    assert [one.index for one in found.data] == list(range(len(found.data)))
    return [one.embedding for one in found.data], found.usage


def test_vectors_are_those_of_the_command(client, vectors_model):
    done = subprocess.run([server.binary(), "embed", str(vectors_model), "--json", "--", *TEXTS],
                          capture_output=True, text=True, check=True)
    wanted = json.loads(done.stdout)
    # The client asks for base64, unless it is told to ask for numbers.
    for more in ({}, {"encoding_format": "float"}):
        found, usage = vectors(client, TEXTS, **more)
        assert found == wanted["embeddings"]
        assert usage.prompt_tokens == usage.total_tokens == sum(wanted["tokens"])
    assert vectors(client, TEXTS[1])[0] == [wanted["embeddings"][1]]
    assert vectors(client, [2, 5, 6, 7, 3])[0] == [wanted["embeddings"][1]]
    assert vectors(client, [[2, 5, 6, 7, 3], [2, 4, 3]])[0] == [wanted["embeddings"][1], wanted["embeddings"][0]]


def test_shorter_vectors_have_length_one(client):
    whole, short = vectors(client, TEXTS)[0], vectors(client, TEXTS, dimensions=8)[0]
    for one, other in zip(whole, short, strict=True):
        assert len(other) == 8 and math.isclose(math.hypot(*other), 1, rel_tol=1e-6)
        assert all(math.isclose(a, b / math.hypot(*one[:8]), rel_tol=1e-5, abs_tol=1e-7)
                   for a, b in zip(other, one, strict=False))


def test_many_at_once_give_the_vector_of_one(vectors_url, key, client):
    wanted = vectors(client, TEXTS[2])[0][0]

    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=f"{vectors_url}/v1", api_key=key) as many:
            asked = (many.embeddings.create(model="small", input=TEXTS[2]) for _ in range(24))
            return [found.data[0].embedding for found in await asyncio.gather(*asked)]

    assert asyncio.run(all_at_once()) == [wanted] * 24


def test_errors_are_typed(client, url, key):
    with pytest.raises(openai.BadRequestError) as long:
        vectors(client, " ".join(["w4"] * 100))
    assert (long.value.param, long.value.code) == ("input", "context_length_exceeded")
    assert len(vectors(client, " ".join(["w4"] * 100), extra_body={"truncate_prompt_tokens": -1})[0]) == 1
    with pytest.raises(openai.BadRequestError) as wide:
        vectors(client, "w4", dimensions=31)
    assert wide.value.param == "dimensions"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="another", input="w4")
    with pytest.raises(openai.BadRequestError) as writes:
        client.chat.completions.create(model="small", messages=[{"role": "user", "content": "w4"}])
    assert writes.value.code == "unsupported_model"
    with pytest.raises(openai.BadRequestError) as reads:
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0).embeddings.create(model="tiny", input="a")
    assert reads.value.code == "unsupported_model"
