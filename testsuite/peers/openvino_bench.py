"""One measurement of OpenVINO GenAI: prints {"prefill", "decode"} or {"single", "together"} in tokens a second as JSON.

Its model is made first, with int8 or int4 weights of every matrix (groups of 32 in int4), as its exporter makes them.
Prefill is `--prompt` tokens up to the first token of the answer; decode is `--decode` tokens after a prompt of one.
With `--sequences` it is one answer and so many at once, each of `--decode` tokens after a prompt of one token.
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import words

# What its exporter takes for a format.
WEIGHTS = {"int8": dict(bits=8, sym=True), "int4": dict(bits=4, sym=True, group_size=32, ratio=1.0, all_layers=True)}


def export(folder, form):
    """The model in OpenVINO's form beside `folder`."""
    out = Path(folder).parent / f"openvino-{form}"
    if (out / "complete").exists():
        return out
    with contextlib.redirect_stdout(sys.stderr):  # What the exporter has to say is no result.
        from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

        made = OVModelForCausalLM.from_pretrained(
            folder, export=True, compile=False, quantization_config=OVWeightQuantizationConfig(**WEIGHTS[form]))
        made.save_pretrained(out)
        words.write_tokenizer(out, words.vocab(folder))
    (out / "complete").touch()
    return out


def pipeline(folder, args):
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.cache_size, scheduler.max_num_batched_tokens, scheduler.enable_prefix_caching = 1, 1024, False
    threads = {"INFERENCE_NUM_THREADS": args.threads}
    return genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", threads)


def answers(pipe, prompts, tokens):
    """Seconds until all prompts have so many tokens of an answer each."""
    import openvino as ov
    import openvino_genai as genai

    config = genai.GenerationConfig(max_new_tokens=tokens, ignore_eos=True, do_sample=False)
    inputs = [ov.Tensor(np.array([ids], np.int64)) for ids in prompts]
    start = time.perf_counter()
    made = pipe.generate(inputs, [config] * len(inputs))
    seconds = time.perf_counter() - start
    assert all(len(each.m_generation_ids[0]) == tokens for each in made), "OpenVINO ended an answer early"
    return seconds


def measure(args):
    pipe = pipeline(export(args.model, args.format), args)
    ids = [(7 + 31 * at) % 1000 for at in range(args.prompt)]
    answers(pipe, [ids], 2)
    # A token after the first takes the time of a step; the first of an answer comes with its prompt.
    steps = lambda prompts: answers(pipe, prompts, args.decode + 1) - answers(pipe, prompts, 1)
    single = args.decode / steps([ids[:1]])
    if args.sequences:
        many = [[token] for token in ids[: args.sequences]]
        return {"single": single, "together": args.sequences * args.decode / steps(many)}
    return {"prefill": args.prompt / answers(pipe, [ids], 1), "decode": single}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--format", choices=WEIGHTS, default="int8")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
