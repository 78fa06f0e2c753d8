"""OpenAI's own description of its interface, where somebody has it: `SINTER_OPENAI_DOCUMENT` names `openapi.json` of
github.com/openai/openai-openapi. It is too big to come with the client, so `make test` does without."""

import functools
import json
import os

import jsonschema

# The descriptions of what the client's types describe as well.
NAMES = {
    "ChatCompletion": "CreateChatCompletionResponse",
    "ChatCompletionChunk": "CreateChatCompletionStreamResponse",
    "Completion": "CreateCompletionResponse",
    "CreateEmbeddingResponse": "CreateEmbeddingResponse",
    "Model": "Model",
    "Response": "Response",
    "ResponseItemList": "ResponseItemList",
    "ResponseStreamEvent": "ResponseStreamEvent",
    "ErrorObject": "Error",
}


def nulls(schema):
    """The same in words of JSON Schema alone: `nullable` is of an older OpenAPI, and the document has it still."""
    if isinstance(schema, list):
        return [nulls(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: nulls(one) for name, one in schema.items()}
    return {"anyOf": [schema, {"type": "null"}]} if schema.pop("nullable", None) is True else schema


@functools.cache
def document():
    path = os.environ.get("SINTER_OPENAI_DOCUMENT")
    return path and nulls(json.load(open(path)))


@functools.cache
def validator(name):
    schema = {"$ref": f"#/components/schemas/{NAMES[name]}", "components": document()["components"]}
    return jsonschema.Draft202012Validator(schema)


def check(name, value):
    """Holds a value against the description of that name, if there is a document."""
    if document():
        error = jsonschema.exceptions.best_match(validator(name).iter_errors(value))
        assert error is None, f"{error.json_path}: {error.message[:300]}"
