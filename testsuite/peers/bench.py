"""Sinter against its peers on the same random weights, interleaved in one run: A B C A B C …

In bf16 the peers are llama.cpp and PyTorch. With `--format int8` or `int4`, Sinter runs a bundle compiled with `--quant`,
llama.cpp Q8_0 or Q4_0, and OpenVINO GenAI what its exporter makes.

Prints medians, spreads and ratios. All decode from an empty context and prefill 512 tokens at once, two threads.
Correctness stands beside the speed: `sinter bench` checks that chunked and whole prefill give the same bits, and the
run stops if they do not.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import models

HERE = Path(__file__).parent


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout)


def compiled(binary, folder, args):
    """What Sinter runs: the directory itself, or a bundle whose weights are quantised."""
    if args.format == "bf16":
        return folder
    bundle = folder.parent / f"bundle-{args.format}"
    run([binary, "compile", folder, "-o", bundle, "--quant", args.format, "--dtype", "bf16", "--json"])
    return bundle


def ours(binary, folder, args):
    common = ["--json", "--repetitions", "1", "--dtype", "bf16", "--threads", str(args.threads)]
    prefill = run([binary, "bench", folder, "prefill", *common, "--prompt", str(args.prompt)])
    decode = run([binary, "bench", folder, "decode", *common, "--decode", str(args.decode)])
    for result in (prefill, decode):
        if not result["chunked_equals_whole"]:
            sys.exit("sinter: chunked and whole prefill differ")
    return {
        "prefill": prefill["prefill"]["tokens_per_second"],
        "decode": decode["decode"]["tokens_per_second"],
        "bandwidth": decode["read_bandwidth_bytes_per_second"] / 1e9,
        "share": decode["decode_share_of_bandwidth"],
    }


def llama_cpp(paths, args):
    script = [sys.executable, HERE / "llama_cpp_bench.py", paths[1], "--threads", str(args.threads)]
    return run([*script, "--prompt", str(args.prompt), "--decode", str(args.decode)])


def torch(paths, args):
    script = [sys.executable, HERE / "torch_bench.py", paths[0], "--threads", str(args.threads)]
    return run([*script, "--prompt", str(args.prompt), "--decode", str(args.decode)])


def openvino(paths, args):
    script = [sys.executable, HERE / "openvino_bench.py", paths[0], "--threads", str(args.threads)]
    return run([*script, "--format", args.format, "--prompt", str(args.prompt), "--decode", str(args.decode)])


# Each is given the directory and the GGUF file.
PEERS = {
    "bf16": {"llama.cpp": llama_cpp, "PyTorch": torch},
    "int8": {"llama.cpp": llama_cpp, "OpenVINO": openvino},
    "int4": {"llama.cpp": llama_cpp, "OpenVINO": openvino},
}


def spread(values):
    return (max(values) - min(values)) / statistics.median(values)


def compare(name, args):
    paths = models.make_as(name, args.work, args.format)
    folder = compiled(args.sinter, paths[0], args)
    peers = {peer: measure for peer, measure in PEERS[args.format].items() if peer in args.peers}
    rounds = []
    for number in range(args.rounds):
        rounds.append({"sinter": ours(args.sinter, folder, args)})
        rounds[-1].update((peer, measure(paths, args)) for peer, measure in peers.items())
        print(f"{name} round {number}: {rounds[-1]}", file=sys.stderr)
    table = {}
    for what in ("prefill", "decode"):
        rates = {who: [each[who][what] for each in rounds] for who in rounds[0]}
        table[what] = {
            who: {
                "tokens_per_second": statistics.median(values), "spread": spread(values),
                "ratio": statistics.median(x / y for x, y in zip(rates["sinter"], values)),
            }
            for who, values in rates.items()
        }
    table["read_bandwidth_gb_s"] = statistics.median(each["sinter"]["bandwidth"] for each in rounds)
    table["decode_share_of_bandwidth"] = statistics.median(each["sinter"]["share"] for each in rounds)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sinter", default="target/release/sinter")
    parser.add_argument("--work", default="target/peers")
    parser.add_argument("--format", choices=models.FORMATS, default="bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    every = sorted({peer for peers in PEERS.values() for peer in peers})
    parser.add_argument("--peer", dest="peers", action="append", choices=every, help="of the format's peers this one alone; may be repeated")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("models", nargs="*", default=list(models.SHAPES))
    args = parser.parse_args()
    args.peers = args.peers or every
    tables = {name: compare(name, args) for name in args.models}
    if args.json:
        print(json.dumps(tables, indent=1))
        return
    for name, table in tables.items():
        bandwidth, share = table["read_bandwidth_gb_s"], table["decode_share_of_bandwidth"]
        print(f"{name}: read bandwidth {bandwidth:.1f} GB/s, sinter's decode reads weights at {share:.0%} of it")
        for what in ("prefill", "decode"):
            for who, row in table[what].items():
                print(f"  {what:8} {who:10} {row['tokens_per_second']:8.1f} tok/s (±{row['spread']:.0%})"
                      + ("" if who == "sinter" else f"  sinter is {row['ratio']:.2f} times as fast"))


if __name__ == "__main__":
    main()
