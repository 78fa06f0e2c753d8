"""OpenAI's own client."""

import asyncio
import math

import openai
import pytest

QUESTION = [{"role": "user", "content": "Do you know the capital of Thailand?"}]
ANSWER = "The capital of Thailand is Bangkok."
PROMPT = "<|bos|><|user|>Do you know the capital of Thailand?<|end|><|assistant|>"


@pytest.fixture(scope="module")
def client(url, key):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def ask(client, **more):
    return client.chat.completions.create(model="tiny", messages=QUESTION, temperature=0, **more)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_chat_and_usage(client):
    answer = ask(client)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    usage = answer.usage
    assert usage.prompt_tokens > 5 and usage.completion_tokens > 3
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_stream_equals_whole(client):
    whole = ask(client, logprobs=True, top_logprobs=2)
    parts = list(ask(client, stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == ANSWER
    assert len([part for part in parts if part.choices and part.choices[0].delta.content]) > 3
    assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == "stop"
    assert parts[-1].choices == [] and parts[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": parts[-1].usage.prompt_tokens_details})
    told = [one for part in parts if part.choices and part.choices[0].logprobs
            for one in part.choices[0].logprobs.content]
    assert told == whole.choices[0].logprobs.content


def test_the_client_gathers_a_stream(client):
    with client.chat.completions.stream(model="tiny", messages=QUESTION, temperature=0) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == ANSWER


def test_logprobs(client):
    content = ask(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert bytes(byte for one in content for byte in one.bytes).decode().startswith(ANSWER)
    for one in content:
        assert len(one.top_logprobs) == 3 and one.logprob <= 0
        ordered = [top.logprob for top in one.top_logprobs]
        assert ordered == sorted(ordered, reverse=True)
        # The likeliest is taken.
        assert one.top_logprobs[0].token == one.token and one.top_logprobs[0].logprob == one.logprob
        assert sum(math.exp(value) for value in ordered) <= 1.0001


def test_several_choices_with_a_seed(client):
    def texts(seed):
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Tell me a story."}],
            n=3, seed=seed, temperature=1.2, max_tokens=24)
        return [choice.message.content for choice in sorted(answer.choices, key=lambda choice: choice.index)]

    first = texts(7)
    assert len(first) == 3 and len(set(first)) > 1
    assert texts(7) == first and texts(8) != first


def test_stop_and_length(client):
    stopped = ask(client, stop=["Bangkok"]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("The capital of Thailand is ", "stop")
    short = ask(client, max_completion_tokens=2)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 2


def test_completions_with_echo_and_tokens(client):
    whole = client.completions.create(model="tiny", prompt=PROMPT, temperature=0, max_tokens=30, logprobs=1)
    assert whole.choices[0].text == ANSWER
    prompts = [PROMPT, PROMPT.replace("Thailand", "Japan")]
    both = client.completions.create(model="tiny", prompt=prompts, temperature=0, max_tokens=30)
    assert [choice.text for choice in both.choices] == [ANSWER, "The capital of Japan is Tokyo."]
    echoed = client.completions.create(model="tiny", prompt=PROMPT, temperature=0, max_tokens=1, echo=True, logprobs=1)
    logprobs = echoed.choices[0].logprobs.token_logprobs
    assert logprobs[0] is None and all(value <= 0 for value in logprobs[1:])
    assert len(logprobs) == echoed.usage.prompt_tokens + 1


def test_errors_are_typed(client, url):
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(client, n=99)
    assert wrong.value.param == "n" and "99" in wrong.value.message
    with pytest.raises(openai.BadRequestError) as unknown:
        ask(client, extra_body={"temprature": 0})
    assert "temprature" in unknown.value.message
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="another", messages=QUESTION)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="tiny", prompt=[5] * 5000, max_tokens=1)


def test_many_at_once_give_the_answer_of_one(url, key):
    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key) as client:
            asked = (client.chat.completions.create(model="tiny", messages=QUESTION, temperature=0) for _ in range(24))
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

    assert asyncio.run(all_at_once()) == [ANSWER] * 24
