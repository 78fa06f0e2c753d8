"""Schemas and tools through OpenAI's own client."""

import json
from typing import Literal

import openai
import pydantic
import pytest

QUESTION = [{"role": "user", "content": "Do you know the capital of Thailand?"}]


@pytest.fixture(scope="module")
def client(url, key):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}},
                   "required": ["city"], "additionalProperties": False}}}


def test_a_tool_that_must_be_called_is_called(client):
    answer = client.chat.completions.create(
        model="tiny", messages=QUESTION, temperature=0, tools=[WEATHER], tool_choice="required",
        parallel_tool_calls=False, max_tokens=120).choices[0]
    call = answer.message.tool_calls[0]
    assert answer.finish_reason == "tool_calls" and call.function.name == "weather"
    assert list(json.loads(call.function.arguments)) == ["city"]


class Capital(pydantic.BaseModel):
    city: str = pydantic.Field(max_length=12)
    size: Literal["large", "small"]


def test_a_schema_is_kept(client):
    parsed = client.chat.completions.parse(
        model="tiny", messages=QUESTION, response_format=Capital, temperature=0, max_tokens=120)
    assert isinstance(parsed.choices[0].message.parsed, Capital)
