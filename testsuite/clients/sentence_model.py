"""A tiny model that makes vectors: a golden's weights, with a tokenizer of words and what sentence-transformers writes."""

import json
import shutil
from pathlib import Path

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
WORDS = 101


def write(folder, golden="bert"):
    """Makes the model in a folder. Its words are w4, w5, ... up to w100."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDENS / golden / name, folder / name)
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = {word: id for id, word in enumerate(marks + [f"w{id}" for id in range(4, WORDS)])}
    added = [{"id": id, "content": mark, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for id, mark in enumerate(marks)]

    def mark(name, kind):
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name, kind):
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [mark("[CLS]", 0), text("A", 0), mark("[SEP]", 0)]
    template = {"type": "TemplateProcessing", "single": single,
                "pair": [*single, text("B", 1), mark("[SEP]", 1)],
                "special_tokens": {name: {"id": name, "ids": [words[name]], "tokens": [name]} for name in marks[2:]}}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
                 "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": template, "decoder": None,
                 "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for at, (path, kind) in enumerate(kinds.items())]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    return folder
