"""Figures of the server: time to the first token with a shared beginning, and time from start to a 200 from /health.

Prints JSON. The first: prompts that share `--prefix` tokens, each with a beginning that nobody had before (cold) and
then again with another end (warm), one request at a time. The second: the server of a model whose plan, and bundle if
`--bundle` names one, is in the cache; beside it the time that reading the weights alone takes.
"""

import argparse
import json
import os
import statistics
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))
import server
import words


def with_tokenizer(model):
    """The model itself, or, if it has no tokenizer, a folder beside it that adds one word for each token."""
    model = Path(model).resolve()
    if (model / "tokenizer.json").exists():
        return model
    folder = server.ROOT / "target" / "peers" / (model.parent.name + "-served")
    folder.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        if not (folder / file.name).exists():
            # No symbolic link: those that lead out of a model's folder are refused.
            os.link(file, folder / file.name)
    words.write_tokenizer(folder, words.vocab(model))
    return folder


def first_token(started, prompt):
    """Seconds to the first event, and tokens of the prompt that were in the cache."""
    body = {"prompt": prompt, "max_tokens": 2, "temperature": 0, "ignore_eos": True, "stream": True, "logprobs": 0,
            "stream_options": {"include_usage": True}}
    request = urllib.request.Request(started.url + "/v1/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    begun, first, cached = time.perf_counter(), None, 0
    with urllib.request.urlopen(request, timeout=600) as response:
        for line in response:
            if not line.startswith(b"data:") or b"[DONE]" in line:
                continue
            first = first or time.perf_counter() - begun
            usage = json.loads(line[5:]).get("usage")
            cached = usage["prompt_tokens_details"]["cached_tokens"] if usage else cached
    return first, cached


def prefix(args):
    """Cold and warm times in turn."""
    flags = ("--threads", str(args.threads), "--max-sequences", "4", "--log", "off", "--stalled-after", "60")
    with server.serve(*flags, "--max-context", str(args.prefix + 64), model=args.model) as started:
        vocab = started.get("/get_model_info")["vocab_size"]
        rounds = []
        first_token(started, [7, 8, 9])
        for number in range(args.rounds):
            shared = [(17 + 131 * number + 29 * at) % vocab for at in range(args.prefix)]
            cold, none = first_token(started, shared + [number, 1, 2])
            warm, cached = first_token(started, shared + [number, 3, 4])
            if none > 32 or cached < args.prefix - 16:
                sys.exit(f"cold found {none} tokens in the cache, warm {cached}")
            rounds.append({"cold_s": cold, "warm_s": warm, "ratio": warm / cold})
    return {"prefix_tokens": args.prefix, "rounds": rounds, "ratio": statistics.median(each["ratio"] for each in rounds)}


def start(args):
    """Seconds from the start of the process to a 200 from /health, and of reading the weights."""
    model = args.bundle or args.model
    rounds = []
    for _ in range(args.rounds + 1):
        files = [path for path in Path(model).rglob("*") if path.is_file()]
        begun = time.perf_counter()
        for path in files:
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 22):
                    pass
        read = time.perf_counter() - begun
        begun = time.perf_counter()
        with server.serve("--threads", str(args.threads), "--max-context", "512", "--max-sequences", "4", model=model) as started:
            while True:
                try:
                    started.get("/health")
                    break
                except urllib.error.URLError:
                    time.sleep(0.005)
            rounds.append({"healthy_s": time.perf_counter() - begun, "read_s": read})
    rounds = rounds[1:]  # The first fills the cache.
    over = [each["healthy_s"] - each["read_s"] for each in rounds]
    return {"model": str(model), "rounds": rounds, "over_reading_s": statistics.median(over)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("prefix", "start"), nargs="+")
    parser.add_argument("--model", default="target/peers/llama-3.2-1b/hf")
    parser.add_argument("--bundle")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefix", type=int, default=1000)
    args = parser.parse_args()
    args.model = with_tokenizer(args.model)
    print(json.dumps({what: {"prefix": prefix, "start": start}[what](args) for what in args.what}, indent=1))


if __name__ == "__main__":
    main()
