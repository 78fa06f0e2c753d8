"""Schemas and tools through what is built on OpenAI's client: langchain-openai and instructor."""

from typing import Literal

import instructor
import openai
import pydantic
import pytest
from langchain_openai import ChatOpenAI

QUESTION = "Do you know the capital of Thailand?"


class Capital(pydantic.BaseModel):
    """A capital, and nothing more: where more is allowed, a small model goes on and on."""

    model_config = pydantic.ConfigDict(extra="forbid")
    city: Literal["Bangkok", "Tokyo"]


def test_langchain(url, key):
    chat = ChatOpenAI(model="tiny", base_url=f"{url}/v1", api_key=key, temperature=0, max_retries=0, max_tokens=120)
    structured = chat.with_structured_output(Capital, method="json_schema")
    assert isinstance(structured.invoke(QUESTION), Capital)
    call = chat.bind_tools([Capital], tool_choice="required", parallel_tool_calls=False).invoke(QUESTION).tool_calls[0]
    assert call["name"] == "Capital" and list(call["args"]) == ["city"]


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
def test_instructor(url, key, mode):
    client = instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0), mode=mode)
    messages = [{"role": "user", "content": QUESTION}]
    made = client.chat.completions.create(
        model="tiny", response_model=Capital, messages=messages, temperature=0, max_tokens=120, max_retries=1)
    assert isinstance(made, Capital)
