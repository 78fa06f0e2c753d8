"""Many sequences together: Sinter's engine against itself alone, and against llama.cpp, interleaved in one run.

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


def theirs(file, args):
    script = [sys.executable, HERE / "llama_cpp_batch.py", file, "--threads", str(args.threads)]
    return run([*script, "--decode", str(args.decode), "--sequences", str(args.sequences)])


def summary(results):
    """Median and spread of what each round gave."""
    told = {}
    for what in ("single", "together"):
        rates = [result[what] for result in results]
        told[what] = {"tokens_per_second": statistics.median(rates), "spread": spread(rates)}
    return told


def compare(name, args):
    folder, file = models.make_as(name, args.work, args.format)
    folder = compiled(args.sinter, folder, args)
    rounds = []
    for number in range(args.rounds):
        rounds.append((ours(args.sinter, folder, args), theirs(file, args) if args.peer else None))
        print(f"{name} round {number}: sinter {rounds[-1][0]}, llama.cpp {rounds[-1][1]}", file=sys.stderr)
    table = {
        "sequences": args.sequences,
        "sinter": summary([a for a, _ in rounds]),
        "together_over_single": statistics.median(a["together"] / a["single"] for a, _ in rounds),
    }
    if args.peer:
        table["llama.cpp"] = summary([b for _, b in rounds])
        ratios = [a["together"] / b["together"] for a, b in rounds]
        table["over_llama.cpp"], table["over_llama.cpp_range"] = statistics.median(ratios), [min(ratios), max(ratios)]
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
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="leave llama.cpp out")
    parser.add_argument("models", nargs="*", default=["llama-3.2-1b"])
    args = parser.parse_args()
    print(json.dumps({name: compare(name, args) for name in args.models}, indent=1))


if __name__ == "__main__":
    main()
