"""One measurement of OpenVINO GenAI: prints {"prefill", "decode", "together"} in tokens a second as JSON.

`export FOLDER OUT FORMAT` makes its model first: int8 or int4 weights of every matrix, as its exporter makes them.
Prefill is `--prompt` tokens up to the first token of the answer; decode is `--decode` tokens after a prompt of one;
`together` is `--sequences` answers of `--decode` tokens at once, each after a prompt of one token.
"""

import argparse
import json
import time
from pathlib import Path

# A model of random weights has no tokenizer; its words are never made.
NO_WORDS = {"detokenize": False}


def export(folder, out, form):
    """The model in OpenVINO's form below `out`, unless it is there."""
    if (Path(out) / "complete").exists():
        return
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    bits = {"int8": dict(bits=8), "int4": dict(bits=4, sym=True, group_size=32, ratio=1.0)}[form]
    model = OVModelForCausalLM.from_pretrained(
        folder, export=True, compile=False, quantization_config=OVWeightQuantizationConfig(**bits))
    model.save_pretrained(out)
    (Path(out) / "complete").touch()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
