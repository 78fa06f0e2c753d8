"""What is built on OpenAI's client: litellm and langchain-openai; and lm-eval."""

import asyncio
import json
import os
import subprocess
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # No table from the network.
os.environ["HF_HUB_OFFLINE"] = "1"

import litellm
import openai
import pytest
import server
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

HERE = server.ROOT / "testsuite" / "clients"
QUESTION = "Do you know the capital of Thailand?"
ANSWER = "The capital of Thailand is Bangkok."


def test_litellm(url, key):
    common = {"model": "openai/tiny", "api_base": f"{url}/v1", "api_key": key, "temperature": 0, "num_retries": 0,
              "messages": [{"role": "user", "content": QUESTION}]}
    whole = litellm.completion(**common)
    assert whole.choices[0].message.content == ANSWER and whole.usage.completion_tokens > 3
    parts = litellm.completion(**common, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == ANSWER
    many = asyncio.run(litellm.acompletion(**{**common, "temperature": 1.0}, n=2, seed=3, max_tokens=8))
    assert len(many.choices) == 2
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**{**common, "api_key": "wrong"})
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**common, n=99)


def test_langchain(url, key):
    chat = ChatOpenAI(model="tiny", base_url=f"{url}/v1", api_key=key, temperature=0, max_retries=0)
    answer = chat.invoke([HumanMessage(QUESTION)])
    assert answer.content == ANSWER and answer.usage_metadata["output_tokens"] > 3
    assert "".join(part.content for part in chat.stream(QUESTION)) == ANSWER
    assert [one.content for one in chat.batch([QUESTION] * 4)] == [ANSWER] * 4
    logprobs = chat.bind(logprobs=True).invoke(QUESTION).response_metadata["logprobs"]["content"]
    assert logprobs and all(one["logprob"] <= 0 for one in logprobs)


def test_vectors(vectors_url, key):
    texts = ["w4 w5", "w6"]
    wanted = openai.OpenAI(base_url=f"{vectors_url}/v1", api_key=key).embeddings.create(model="small", input=texts)
    wanted = [one.embedding for one in wanted.data]
    made = litellm.embedding(model="openai/small", api_base=f"{vectors_url}/v1", api_key=key, input=texts)
    assert [one["embedding"] for one in made.data] == wanted and made.usage.prompt_tokens == 7
    # Unless told so, it would count tokens as OpenAI's models do.
    chain = OpenAIEmbeddings(model="small", base_url=f"{vectors_url}/v1", api_key=key, check_embedding_ctx_length=False)
    assert chain.embed_documents(texts) == wanted and chain.embed_query(texts[1]) == wanted[1]


def own_score(client, name):
    """The share of exact answers, asked as a conversation."""
    lines = (server.ROOT / "examples" / "tiny_chat" / "eval" / f"{name}.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]

    async def ask(case, gate):
        async with gate:
            messages = [{"role": "user", "content": case["prompt"]}]
            answer = await client.chat.completions.create(model="tiny", messages=messages, temperature=0)
            return answer.choices[0].message.content == case["answer"]

    async def all_cases():
        gate = asyncio.Semaphore(16)
        return await asyncio.gather(*(ask(case, gate) for case in cases))

    answers = asyncio.run(all_cases())
    return sum(answers), len(answers)


# Of 300 and 200 questions: what the README of the example says, measured with another implementation in float32.
SCORES = {"facts": (297, 300), "arithmetic": (189, 200)}


@pytest.mark.parametrize("name", SCORES)
def test_lm_eval(url, key, name, tmp_path):
    right, count = own_score(openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key), name)
    assert (right, count) == SCORES[name]
    arguments = {"model": "tiny", "base_url": f"{url}/v1/completions", "num_concurrent": 8,
                 "tokenizer_backend": "None", "tokenized_requests": False, "max_length": 500}
    command = [sys.executable, "-m", "lm_eval", "--model", "local-completions",
               "--model_args", ",".join(f"{name}={value}" for name, value in arguments.items()),
               "--include_path", HERE / "tasks", "--tasks", f"tiny_{name}", "--output_path", tmp_path]
    environment = {**os.environ, "OPENAI_API_KEY": key, "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, cwd=server.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(tmp_path.glob("**/results*.json")).read_text())["results"][f"tiny_{name}"]
    assert found["exact_match,none"] == pytest.approx(right / count, abs=1e-12)
