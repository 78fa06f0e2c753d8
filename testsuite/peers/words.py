"""A tokenizer for models of random weights, for those that want one. Only the standard library is used."""

import json
from pathlib import Path


def vocab(folder):
    """The number of tokens of a model's directory."""
    return json.loads((Path(folder) / "config.json").read_text())["vocab_size"]


def write_tokenizer(folder, count):
    """A tokenizer of one word for each token, for peers that want one."""
    words = {"type": "WordLevel", "unk_token": "w0", "vocab": {f"w{at}": at for at in range(count)}}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": words}
    (Path(folder) / "tokenizer.json").write_text(json.dumps(tokenizer))
