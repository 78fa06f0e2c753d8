"""One measurement of llama.cpp with many sequences: prints {"single", "together"} in tokens a second as JSON.

Every sequence begins with one token and decodes `--decode` tokens, one a step, all sequences in one batch; `single` is
the first of them alone. The first step, which fills the cache with the first tokens, does not count, and tokens are
taken greedily from the logits, as a server must.
"""

import argparse
import json
import time

import llama_cpp
import numpy as np
from llama_cpp_bench import load


def context(model, threads, sequences, tokens):
    params = llama_cpp.llama_context_default_params()
    params.n_seq_max, params.n_ctx = sequences, sequences * (tokens + 16)
    params.n_batch = params.n_ubatch = max(sequences, 32)
    params.n_threads = params.n_threads_batch = threads
    made = llama_cpp.llama_init_from_model(model, params)
    assert made, "llama.cpp made no context"
    return made


def step(ctx, batch, tokens, position, vocab):
    """One token of every sequence, and the likeliest next token of each."""
    batch.n_tokens = len(tokens)
    for at, token in enumerate(tokens):
        batch.token[at], batch.pos[at] = token, position
        batch.n_seq_id[at], batch.seq_id[at][0], batch.logits[at] = 1, at, 1
    assert llama_cpp.llama_decode(ctx, batch) == 0, "llama.cpp refused the batch"
    rows = (llama_cpp.llama_get_logits_ith(ctx, at) for at in range(len(tokens)))
    return [int(np.argmax(np.ctypeslib.as_array(row, shape=(vocab,)))) for row in rows]


def timed(model, args, sequences):
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    ctx = context(model, args.threads, sequences, args.decode)
    batch = llama_cpp.llama_batch_init(sequences, 0, 1)
    tokens = step(ctx, batch, [(7 + 31 * at) % 1000 for at in range(sequences)], 0, vocab)
    start = time.perf_counter()
    for position in range(1, args.decode + 1):
        tokens = step(ctx, batch, tokens, position, vocab)
    seconds = time.perf_counter() - start
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(ctx)
    return sequences * args.decode / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    model = load(args.model)
    warm = argparse.Namespace(**{**vars(args), "decode": 2})
    timed(model, warm, args.sequences)
    print(json.dumps({"single": timed(model, args, 1), "together": timed(model, args, args.sequences)}))


if __name__ == "__main__":
    main()
