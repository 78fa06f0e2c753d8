"""Anthropic's own client. It has no temperature; the model's own wish is to be greedy."""

import anthropic
import pytest

QUESTION = [{"role": "user", "content": "Do you know the capital of Thailand?"}]
ANSWER = "The capital of Thailand is Bangkok."


@pytest.fixture(scope="module")
def client(url, key):
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)


def ask(client, **more):
    return client.messages.create(**{"model": "tiny", "max_tokens": 64, "messages": QUESTION, **more})


def test_messages_and_usage(client):
    answer = ask(client)
    assert [block.text for block in answer.content] == [ANSWER]
    assert (answer.role, answer.stop_reason) == ("assistant", "end_turn")
    assert answer.usage.input_tokens > 5 and answer.usage.output_tokens > 3


def test_a_system_prompt_and_blocks(client):
    blocks = [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
    assert ask(client, messages=blocks).content[0].text == ANSWER
    longer = ask(client, system="You are terse.")
    assert longer.usage.input_tokens > ask(client).usage.input_tokens


def test_stream_equals_whole(client):
    request = {"model": "tiny", "max_tokens": 64, "messages": QUESTION}
    with client.messages.stream(**request) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == ANSWER and len(pieces) > 3
    whole = ask(client)
    assert final.content[0].text == ANSWER and final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_stop_sequences_and_length(client):
    stopped = ask(client, stop_sequences=["Bangkok"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "Bangkok")
    assert stopped.content[0].text == "The capital of Thailand is "
    short = ask(client, max_tokens=2)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)


def test_tokens_are_counted(client):
    counted = client.messages.count_tokens(model="tiny", messages=QUESTION)
    assert counted.input_tokens == ask(client).usage.input_tokens


def test_a_tool_that_must_be_called_is_called(client):
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}},
              "required": ["city"], "additionalProperties": False}
    tools = [{"name": "weather", "description": "The weather of a city.", "input_schema": schema}]
    answer = ask(client, tools=tools, tool_choice={"type": "any", "disable_parallel_tool_use": True}, max_tokens=120)
    call = answer.content[-1]
    assert answer.stop_reason == "tool_use"
    assert (call.type, call.name, list(call.input)) == ("tool_use", "weather", ["city"])


def test_errors_are_typed(client, url):
    with pytest.raises(anthropic.BadRequestError):
        ask(client, extra_body={"temperature": -1})
    with pytest.raises(anthropic.NotFoundError):
        ask(client, model="another")
    with pytest.raises(anthropic.AuthenticationError):
        ask(anthropic.Anthropic(base_url=url, api_key="wrong", max_retries=0))
