"""One measurement of llama.cpp: prints {"prefill": tokens/s, "decode": tokens/s} as JSON.

Prefill of `--prompt` tokens in one batch with logits of the last token; decode of `--decode` tokens from an empty
context, as llama.cpp's own bench does.
"""

import argparse
import ctypes
import json
import time

import llama_cpp


# llama.cpp has its address alone, so it must live as long as the process.
QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)


def load(path):
    """The model of a file, without a word from llama.cpp."""
    llama_cpp.llama_log_set(QUIET, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    assert model, "llama.cpp did not load the model"
    return model


def context(model, threads, tokens):
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = tokens + 16, tokens, tokens
    params.n_threads = params.n_threads_batch = threads
    made = llama_cpp.llama_init_from_model(model, params)
    assert made, "llama.cpp made no context"
    return made


def feed(ctx, ids):
    array = (llama_cpp.llama_token * len(ids))(*ids)
    batch = llama_cpp.llama_batch_get_one(array, len(ids))
    assert llama_cpp.llama_decode(ctx, batch) == 0, "llama.cpp refused the batch"
    llama_cpp.llama_synchronize(ctx)


def timed(ctx, chunks):
    start = time.perf_counter()
    for ids in chunks:
        feed(ctx, ids)
    return sum(map(len, chunks)) / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    model = load(args.model)
    ids = [(7 + 31 * at) % 1000 for at in range(max(args.prompt, args.decode) + 1)]
    warm = context(model, args.threads, args.prompt)
    feed(warm, ids[: args.prompt])
    result = {}
    result["prefill"] = timed(context(model, args.threads, args.prompt), [ids[: args.prompt]])
    empty = context(model, args.threads, args.prompt)
    feed(empty, ids[:1])
    result["decode"] = timed(empty, [[token] for token in ids[1 : args.decode + 1]])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
