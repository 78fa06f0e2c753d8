"""One measurement of PyTorch with transformers, bfloat16: prints {"prefill": tokens/s, "decode": tokens/s} as JSON.

Prefill of `--prompt` tokens at once with logits of the last token; decode of `--decode` tokens from a prompt of one.
"""

import argparse
import json
import time

import torch
from transformers import AutoModelForCausalLM, DynamicCache


def feed(model, cache, ids):
    model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)


def timed(model, cache, chunks):
    start = time.perf_counter()
    for ids in chunks:
        feed(model, cache, ids)
    return sum(map(len, chunks)) / (time.perf_counter() - start)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    ids = [(7 + 31 * at) % 1000 for at in range(max(args.prompt, args.decode) + 1)]
    feed(model, DynamicCache(), ids[: args.prompt])
    prefill = timed(model, DynamicCache(), [ids[: args.prompt]])
    cache = DynamicCache()
    feed(model, cache, ids[:1])
    decode = timed(model, cache, [[token] for token in ids[1 : args.decode + 1]])
    print(json.dumps({"prefill": prefill, "decode": decode}))


if __name__ == "__main__":
    main()
