"""Many sequences together: Sinter's engine against itself alone, and against its peers, interleaved in one run.

Prints medians, spreads and ratios of tokens a second. Every sequence begins with one token and decodes `--decode`
tokens greedily. Correctness stands beside the speed: `sinter bench` checks that every sequence gives the same tokens
alone and in company, and the run stops if one does not.
"""

import argparse
import json
import statistics
import sys

import models
from bench import HERE, compiled, run, spread


def ours(binary, folder, args):
    command = [binary, "bench", folder, "decode", "--json", "--repetitions", "1", "--dtype", args.dtype]
    command += ["--threads", str(args.threads), "--decode", str(args.decode), "--sequences", str(args.sequences)]
    result = run(command)
    if not result["together_equals_alone"]:
        sys.exit("sinter: a sequence in company differs from the same sequence alone")
    return {what: result[what]["tokens_per_second"] for what in ("single", "together")}


def theirs(script, path, args):
    command = [sys.executable, HERE / script, path, "--threads", str(args.threads)]
    if script == "openvino_bench.py":
        command += ["--format", args.format]
    return run([*command, "--decode", str(args.decode), "--sequences", str(args.sequences)])


def summary(results):
    """Median and spread of what each round gave."""
    told = {}
    for what in ("single", "together"):
        rates = [result[what] for result in results]
        told[what] = {"tokens_per_second": statistics.median(rates), "spread": spread(rates)}
    return told


def compare(name, args):
    paths = models.make_as(name, args.work, args.format)
    folder = compiled(args.sinter, paths[0], args)
    peers = {"llama.cpp": ("llama_cpp_batch.py", paths[1])} if args.peer else {}
    if args.peer and args.format != "bf16":
        peers["OpenVINO"] = ("openvino_bench.py", paths[0])
    rounds = []
    for number in range(args.rounds):
        rounds.append({"sinter": ours(args.sinter, folder, args)})
        for peer, (script, path) in peers.items():
            rounds[-1][peer] = theirs(script, path, args)
        print(f"{name} round {number}: {rounds[-1]}", file=sys.stderr)
    table = {"sequences": args.sequences, **{who: summary([each[who] for each in rounds]) for who in rounds[0]}}
    table["together_over_single"] = statistics.median(
        each["sinter"]["together"] / each["sinter"]["single"] for each in rounds)
    for peer in peers:
        ratios = [each["sinter"]["together"] / each[peer]["together"] for each in rounds]
        table[f"over_{peer}"], table[f"over_{peer}_range"] = statistics.median(ratios), [min(ratios), max(ratios)]
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sinter", default="target/release/sinter")
    parser.add_argument("--format", choices=models.FORMATS, default="bf16")
    parser.add_argument("--work", default="target/peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="leave the peers out")
    parser.add_argument("models", nargs="*", default=["llama-3.2-1b"])
    args = parser.parse_args()
    print(json.dumps({name: compare(name, args) for name in args.models}, indent=1))


if __name__ == "__main__":
    main()
