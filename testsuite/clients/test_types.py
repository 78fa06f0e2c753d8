"""Responses as they come, against the types that OpenAI publishes with its client: every field that they ask for is there and
has its type. The client itself builds its objects without looking."""

import json
import urllib.error
import urllib.request

import openai.types as types
import openai.types.responses as responses
import published
import pytest
from openai.types import chat, shared
from pydantic import TypeAdapter

QUESTION = [{"role": "user", "content": "Do you know the capital of Thailand?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
              "additionalProperties": False}
SCHEMA = {"type": "object", "properties": {"size": {"enum": ["large", "small"]}}, "required": ["size"],
          "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": PARAMETERS}}
CALL = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}

CHAT = {
    "plain": {},
    "with log probabilities": {"logprobs": True, "top_logprobs": 3, "n": 2, "temperature": 0.7},
    "too short": {"max_tokens": 2},
    "stopped": {"stop": ["Bangkok"]},
    "a call": CALL,
    "a schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "size", "schema": SCHEMA}}},
}
COMPLETIONS = {
    "plain": {},
    "several": {"prompt": ["Once", "Twice"], "n": 2, "temperature": 1.0},
    "with log probabilities": {"logprobs": 2},
    "with its prompt": {"echo": True, "logprobs": 1},
}
RESPONSES = {
    "plain": {},
    "with log probabilities": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    "too short": {"max_output_tokens": 2},
    "all that is told back": {"instructions": "Be brief.", "metadata": {"a": "b"}, "store": False, "user": "u",
                              "reasoning": {"effort": "low"}, "temperature": 0.5, "top_p": 0.9},
    "a schema": {"text": {"format": {"type": "json_schema", "name": "size", "schema": SCHEMA}}},
    "a call": {"tools": [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}],
               "tool_choice": "required", "parallel_tool_calls": False},
    "a call of one": {"tools": [{"type": "function", "name": "weather", "parameters": PARAMETERS}],
                      "tool_choice": {"type": "function", "name": "weather"}},
}


def check(kind, text):
    """Strict: no text for a number, no number for a text, nothing left out."""
    published.check("ResponseStreamEvent" if kind is responses.ResponseStreamEvent else kind.__name__, json.loads(text))
    return TypeAdapter(kind).validate_json(text, strict=True)


@pytest.fixture(scope="module")
def ask(url, vectors_url, key):
    def send(path, body=None, vectors=False, key=key, method=None):
        """The status and the text of a response."""
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        target = (vectors_url if vectors else url) + path
        request = urllib.request.Request(target, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return send


def good(answer):
    status, text = answer
    assert status == 200, text
    return text


def events(text):
    """The data of a stream's events."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return data[:-1] if data[-1] == "[DONE]" else data


@pytest.mark.parametrize("case", CHAT)
def test_conversations(ask, case):
    body = {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_tokens": 100, **CHAT[case]}
    whole = check(chat.ChatCompletion, good(ask("/v1/chat/completions", body)))
    assert whole.choices and whole.usage
    parts = events(good(ask("/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})))
    assert len(parts) > 3
    for part in parts:
        check(chat.ChatCompletionChunk, part)


def without_nulls(text, stream):
    """A completion less what OpenAI's own server leaves null against its types: the reason of an end that has not come,
    the log probabilities of a first token, which has none, and the usage before the end of a stream."""
    value = json.loads(text)
    if stream and value.get("usage", 0) is None:
        del value["usage"]
    for choice in value["choices"]:
        if stream and choice["finish_reason"] is None:
            choice["finish_reason"] = "stop"
        for name in ("token_logprobs", "top_logprobs"):
            if choice["logprobs"] and choice["logprobs"][name][:1] == [None]:
                del choice["logprobs"][name][0]
    return json.dumps(value)


@pytest.mark.parametrize("case", COMPLETIONS)
def test_completions(ask, case):
    body = {"model": "tiny", "prompt": "Once", "temperature": 0, "max_tokens": 6, **COMPLETIONS[case]}
    whole = check(types.Completion, without_nulls(good(ask("/v1/completions", body)), False))
    assert whole.choices and whole.usage
    parts = events(good(ask("/v1/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})))
    assert len(parts) > 3
    for part in parts:
        check(types.Completion, without_nulls(part, True))


@pytest.mark.parametrize("case", RESPONSES)
def test_responses(ask, case):
    body = {"model": "tiny", "input": QUESTION[0]["content"], "temperature": 0, "max_output_tokens": 100,
            **RESPONSES[case]}
    whole = check(responses.Response, good(ask("/v1/responses", body)))
    assert whole.output and whole.usage
    told = events(good(ask("/v1/responses", {**body, "stream": True})))
    names = []
    for event in told:
        checked = check(responses.ResponseStreamEvent, event)
        # The type that fits is the one that the event names, not any other of the many.
        assert checked.type == json.loads(event)["type"] and type(checked).__name__.endswith("Event")
        names.append(checked.type)
    assert names[0] == "response.created" and names[-1] in ("response.completed", "response.incomplete")
    if whole.store is not False:
        check(responses.Response, good(ask(f"/v1/responses/{whole.id}")))
        check(responses.ResponseItemList, good(ask(f"/v1/responses/{whole.id}/input_items")))


def test_items_of_every_kind_are_told_back_whole(ask):
    given = [
        {"role": "system", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "The weather?"}]},
        {"role": "assistant", "content": "I look."},
        {"type": "reasoning", "id": "rs_1", "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "Rain."},
        {"role": "user", "content": "And now?"},
    ]
    first = check(responses.Response, good(ask("/v1/responses", {"input": given, "max_output_tokens": 4})))
    more = {"input": "Go on.", "previous_response_id": first.id, "max_output_tokens": 4}
    second = check(responses.Response, good(ask("/v1/responses", more)))
    listed = check(responses.ResponseItemList, good(ask(f"/v1/responses/{second.id}/input_items")))
    kinds = [item.type for item in reversed(listed.data)]
    assert kinds[:7] == [one.get("type", "message") for one in given] and len(kinds) >= 9


@pytest.mark.parametrize("given", ["w4 w5", ["w4", "w5 w6"], [2, 4, 3], [[2, 4, 3], [2, 5, 3]]])
def test_embeddings(ask, given):
    body = {"model": "small", "input": given}
    found = check(types.CreateEmbeddingResponse, good(ask("/v1/embeddings", body, vectors=True)))
    assert all(len(one.embedding) == 30 for one in found.data)


@pytest.mark.parametrize("vectors", [False, True])
def test_models(ask, vectors):
    listed = json.loads(good(ask("/v1/models", vectors=vectors)))
    assert listed["object"] == "list" and len(listed["data"]) == 1
    for model in listed["data"]:
        check(types.Model, json.dumps(model))
        check(types.Model, good(ask(f"/v1/models/{model['id']}", vectors=vectors)))


ERRORS = {
    "a wrong field": (400, "/v1/chat/completions", {"messages": QUESTION, "n": 99}),
    "an unknown field": (400, "/v1/completions", {"prompt": "a", "nonsense": 1}),
    "too long": (400, "/v1/completions", {"prompt": [5] * 5000}),
    "no such model": (404, "/v1/responses", {"model": "another", "input": "a"}),
    "another model's path": (400, "/v1/embeddings", {"input": "a"}),
    "no such path": (404, "/v1/nothing", {}),
    "no such response": (404, "/v1/responses/resp_0", None),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(ask, case):
    wanted, path, body = ERRORS[case]
    status, text = ask(path, body)
    assert status == wanted, text
    value = json.loads(text)
    assert list(value) == ["error"]
    check(types.ErrorObject, json.dumps(value["error"]))


def test_errors_of_keys_and_methods(ask):
    for wanted, answer in [(401, ask("/v1/models", key="wrong")), (405, ask("/v1/completions", method="PUT", body={}))]:
        assert answer[0] == wanted
        check(shared.ErrorObject, json.dumps(json.loads(answer[1])["error"]))
