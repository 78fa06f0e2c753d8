"""The kernels that the GPU ran, computed anew by torch in double precision: run.sh calls it.

    torch_kernels.py DUMP_DIR OUT.json

A tile program's text (docs/ir.md) is read and evaluated on whole tensors: each loop axis is a dimension, a load is an
advanced index, a stage reduces its axis. So torch says what the program means, with nothing of Sinter's in between.
"""

import json
import math
import re
import sys
import time
from pathlib import Path

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SYMBOLS = "TSPNR"
STORED = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
# What one rounding of the stored type and the arithmetic of f32 may cost, relative to the greater of 1 and the value.
BOUND = {"f32": 2e-5, "bf16": 2.0**-7, "f16": 2.0**-9, "u32": 0.0, "bool": 0.0}
BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "idiv": lambda a, b: torch.floor(a / b),
    "mod": torch.remainder,
    "max": torch.maximum,
    "min": torch.minimum,
    "lt": lambda a, b: (a < b).double(),
    "le": lambda a, b: (a <= b).double(),
    "eq": lambda a, b: (a == b).double(),
    "and": lambda a, b: ((a != 0) & (b != 0)).double(),
    "or": lambda a, b: ((a != 0) | (b != 0)).double(),
}
UNARY = {
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "recip": torch.reciprocal,
    "neg": torch.neg,
    "abs": torch.abs,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "floor": torch.floor,
    "not": lambda a: (a == 0).double(),
}


class Program:
    """One tile program with its tensors."""

    def __init__(self, text: str, symbols: list[int], tensors: list[torch.Tensor]):
        self.symbols = dict(zip(SYMBOLS, symbols))
        self.axes: dict[str, int] = {}
        self.params: list[str] = []
        self.exprs: dict[str, str] = {}
        self.stages: dict[str, str] = {}
        self.tensors = tensors
        self.known: dict[str, torch.Tensor] = {}
        for line in map(str.strip, text.splitlines()):
            if match := re.match(r"p(\d+): (\w+)\[", line):
                self.params.append(match[2])
            elif match := re.match(r"(a\d+) = 0\.\.(\S+)", line):
                self.axes[match[1]] = self.extent(match[2])
            elif match := re.match(r"(e\d+) = (.*)", line):
                self.exprs[match[1]] = match[2]
            elif match := re.match(r"(s\d+) = (.*)", line):
                self.stages[match[1]] = match[2]
        self.order = list(self.axes)

    def extent(self, text: str) -> int:
        number, symbol = re.match(r"(\d*)([TSPNR]?)$", text).groups()
        return int(number or 1) * self.symbols.get(symbol, 1)

    def axis(self, name: str) -> torch.Tensor:
        shape = [1] * len(self.order)
        shape[self.order.index(name)] = self.axes[name]
        return torch.arange(self.axes[name], device=DEVICE).reshape(shape)

    def load(self, text: str) -> torch.Tensor:
        """`p0[a0, a1]`"""
        param, index = Index(text).load()
        places = [self.index(part) for part in index]
        return self.tensors[param][tuple(torch.broadcast_tensors(*places))] if places else self.tensors[param]

    def index(self, node) -> torch.Tensor:
        kind, *rest = node
        if kind == "number":
            return torch.tensor(rest[0], device=DEVICE)
        if kind == "axis":
            return self.axis(rest[0])
        if kind == "load":
            param, index = rest
            places = torch.broadcast_tensors(*[self.index(part) for part in index])
            return self.tensors[param][tuple(places)].long()
        a, b = (self.index(part) for part in rest)
        if kind == "/":
            return torch.div(a, b, rounding_mode="floor")
        return {"+": torch.add, "-": torch.sub, "*": torch.mul, "%": torch.remainder}[kind](a, b)

    def expr(self, name: str) -> torch.Tensor:
        if name not in self.known:
            self.known[name] = self.compute(self.exprs[name])
        return self.known[name]

    def compute(self, text: str) -> torch.Tensor:
        op, _, rest = text.partition(" ")
        if re.fullmatch(r"s\d+", text):
            return self.stage(text)
        if op == "load":
            return self.load(rest).double()
        if op == "const":
            return torch.tensor(float(rest.replace("inf", "inf")), device=DEVICE, dtype=torch.float64)
        if op == "index":
            return self.index(Index(rest).sum()).double()
        if op == "cast":
            dtype, arg = (part.strip() for part in rest.split(",")) if "," in rest else rest.split()
            value = self.expr(arg)
            return value.to(STORED[dtype]).double() if dtype in STORED and dtype != "f32" else value
        args = [self.expr(arg.strip()) for arg in rest.split(",")]
        if op == "select":
            return torch.where(args[0] != 0, args[1], args[2])
        return BINARY[op](*args) if op in BINARY else UNARY[op](*args)

    def stage(self, name: str) -> torch.Tensor:
        if name in self.known:
            return self.known[name]
        text = self.stages[name]
        if match := re.match(r"reduce (\w+) (a\d+) : (e\d+)$", text):
            axis = self.order.index(match[2])
            value = self.spread(self.expr(match[3]), match[2])
            folded = value.sum(axis, keepdim=True) if match[1] == "sum" else value.amax(axis, keepdim=True)
        elif match := re.match(r"mma (a\d+) : (.*) \* (p\d+\[.*)$", text):
            axis = self.order.index(match[1])
            product = self.load(match[2]).double() * self.load(match[3]).double()
            folded = self.spread(product, match[1]).sum(axis, keepdim=True)
        elif text.startswith("online"):
            folded = self.online(text)
        else:
            raise NotImplementedError(text)
        self.known[name] = folded
        return folded

    def online(self, text: str) -> torch.Tensor:
        """The whole range gives the same as the promised one."""
        match = re.match(r"online (a\d+) .*lanes a\d+ : (e\d+) \* (p\d+\[.*\])$", text)
        axis = match[1]
        score = self.spread(self.expr(match[2]), axis)
        value = self.load(match[3]).double()
        at = self.order.index(axis)
        weight = torch.nan_to_num(torch.softmax(score, at), nan=0.0)
        # A masked position takes no part, whatever lies there.
        value = torch.where(weight == 0, torch.zeros_like(value), value)
        return (weight * value).sum(at, keepdim=True)

    def spread(self, value: torch.Tensor, axis: str) -> torch.Tensor:
        """The value at every iteration of an axis."""
        at = self.order.index(axis)
        if value.dim() == 0:
            value = value.reshape([1] * len(self.order))
        shape = list(value.shape)
        shape[at] = self.axes[axis]
        return value.expand(shape)

    def angle_error(self) -> float:
        """What an angle is off where it is rounded to f32 before its sine is taken: half of its last bit."""
        turns = any(text.startswith(("sin ", "cos ")) for text in self.exprs.values())
        whole = [tensor.max().item() for dtype, tensor in zip(self.params, self.tensors) if dtype == "u32"]
        return max(whole, default=0.0) * 2.0**-24 if turns else 0.0

    def run(self) -> None:
        for text in self.stages.values():
            match = re.match(r"store \[.*?\] (p\d+\[.*\]) = (e\d+)$", text)
            if not match:
                continue
            param, index = Index(match[1]).load()
            places = [self.index(part) for part in index]
            value = self.expr(match[2])
            *places, value = torch.broadcast_tensors(*places, value)
            dtype = self.params[param]
            if dtype in ("bf16", "f16"):
                value = value.to(STORED[dtype])
            self.tensors[param][tuple(place.long() for place in places)] = value.to(self.tensors[param].dtype)


class Index:
    """Reads whole-number expressions: sums of multiples of axes, loads, quotients and remainders."""

    def __init__(self, text: str):
        self.words = re.findall(r"\d+|[ap]\d+|[a-z]+|[-+*/%()\[\],]", text)
        self.at = 0

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self) -> str:
        self.at += 1
        return self.words[self.at - 1]

    def load(self):
        param = int(self.take()[1:])
        index = []
        self.take()
        while self.peek() != "]":
            index.append(self.sum())
            if self.peek() == ",":
                self.take()
        self.take()
        return param, index

    def sum(self):
        node = self.product()
        while self.peek() and self.peek() in "+-":
            node = (self.take(), node, self.product())
        return node

    def product(self):
        """`7*a0/16` is seven times a quotient."""
        node = self.quotient()
        while self.peek() == "*":
            node = (self.take(), node, self.quotient())
        return node

    def quotient(self):
        node = self.atom()
        while self.peek() and self.peek() in "/%":
            node = (self.take(), node, self.atom())
        return node

    def atom(self):
        word = self.take()
        if word == "-":
            return ("-", ("number", 0), self.atom())
        if word == "(":
            node = self.sum()
            self.take()
            return node
        if word.isdigit():
            return ("number", int(word))
        if word[0] == "a":
            return ("axis", word)
        self.at -= 1
        return ("load", *self.load())


def check(path: Path) -> dict:
    head = json.loads(path.read_text())
    data = bytearray(path.with_suffix(".bin").read_bytes())
    numbers = torch.frombuffer(data, dtype=torch.float32).to(DEVICE).double()
    counts = [math.prod(shape) for shape in head["shapes"]]
    pieces = numbers.split(counts * 2)
    shaped = [piece.reshape(shape).clone() for piece, shape in zip(pieces, head["shapes"] * 2)]
    before, after = shaped[: len(counts)], shaped[len(counts) :]
    program = Program(head["tile"], head["symbols"], before)
    program.run()
    worst = 0.0
    good = True
    for dtype, wanted, found in zip(program.params, program.tensors, after):
        error = ((found - wanted).abs() / wanted.abs().clamp(min=1.0)).nan_to_num(nan=math.inf)
        both_nan = found.isnan() & wanted.isnan()
        same_infinity = found == wanted
        error = torch.where(both_nan | same_infinity, torch.zeros_like(error), error)
        largest = error.max().item() if error.numel() else 0.0
        worst = max(worst, largest)
        good &= largest <= BOUND[dtype] + (program.angle_error() if dtype == "f32" else 0.0)
    return {"kernel": path.stem, "worst": worst, "good": good}


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    results = []
    last = time.monotonic()
    for path in sorted(folder.glob("*.json")):
        try:
            results.append(check(path))
        except (KeyError, NotImplementedError, RuntimeError, TypeError, ValueError, IndexError, OSError) as error:
            results.append({"kernel": path.stem, "good": False, "error": f"{type(error).__name__}: {error}"})
        print(json.dumps(results[-1]), flush=True)
        if time.monotonic() > last + 5:
            # What is known so far stays if the time is up.
            out.write_text(json.dumps(results, indent=1))
            last = time.monotonic()
    out.write_text(json.dumps(results, indent=1))
    sys.exit(0 if results and all(result["good"] for result in results) else 1)


if __name__ == "__main__":
    main()
