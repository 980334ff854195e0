"""Memory and time of reading a model, against its own forward and backward pass.

A model of BERT-base's size with random weights reads t tokens. Peak memory is that of a fresh
process, minus what it held once the model was there and had read a short text. Times are taken in
one process in which all ways take turns, so that a busy machine slows all alike; the best counts.

    eager       forward and backward pass to the embeddings, eager attention
    heads       the same, keeping attention and its gradient of all heads: AGF done plainly
    sdpa        forward and backward pass to the embeddings, fused attention
    trace       the AGF tensor as flowopt makes it
    explain     trace, network, flow and certificate

    python benchmarks/memory.py            # a few minutes
    python benchmarks/memory.py --quick    # one size
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowopt import provenance

RESULTS = Path(__file__).parent / "results"
LAYERS, LONGEST = 12, 1024
TARGET = 1.5
WAYS = ("eager", "heads", "sdpa", "trace", "explain")


def model_with(attention: str):
    """BERT-base with random weights: neither time nor memory depends on their values."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(attn_implementation=attention, max_position_embeddings=LONGEST)
    return BertForSequenceClassification(config).eval()


def reader(way: str) -> Callable[[int], object]:
    """A function that reads t tokens in one of the ways, with the model it needs."""
    model = model_with("eager" if way in ("eager", "heads") else "sdpa")
    read = {"trace": traced, "explain": explained, "heads": all_heads}.get(way, passes)
    return lambda t: read(model, t)


def token_ids(t: int):
    """Ids of t tokens, (1, t)."""
    import torch

    return torch.randint(1000, 20000, (1, t), generator=torch.Generator().manual_seed(0))


def passes(model, t: int) -> object:
    """Forward and backward pass, the gradient by the embeddings."""
    import torch

    start = model.get_input_embeddings()(token_ids(t)).detach().requires_grad_()
    return torch.autograd.grad(model(inputs_embeds=start).logits[0, 0], start)


def all_heads(model, t: int) -> object:
    """AGF from attention and gradients of all heads."""
    import torch

    output = model(input_ids=token_ids(t), output_attentions=True)
    gradients = torch.autograd.grad(output.logits[0, 0], output.attentions)
    pairs = zip(output.attentions, gradients, strict=True)
    return [(a * g).clamp(min=0).mean(dim=1).double().numpy(force=True) for a, g in pairs]


def traced(model, t: int) -> object:
    """AGF as flowopt makes it."""
    from flowopt.tensors import tensor_spec
    from flowopt.trace import batch_of_inputs, trace_batch

    batch = batch_of_inputs(model, {"input_ids": token_ids(t)}, 0)
    return list(trace_batch(model, batch, reduction=tensor_spec("agf").reduction))


def explained(model, t: int) -> object:
    """An attribution."""
    from flowopt.explainer import Explainer

    return Explainer(model).explain_inputs(0, input_ids=token_ids(t))


def peak() -> int:
    """Most bytes that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def held() -> int:
    """Bytes that this process holds; where that cannot be known, the most that it has held."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def peak_here(way: str, t: int) -> int:
    """Bytes of one way and size, in this process."""
    read = reader(way)
    read(16)  # what is loaded once is not counted
    with contextlib.suppress(OSError):  # Linux: forget the peak of loading the model
        Path("/proc/self/clear_refs").write_text("5")
    before = held()
    read(t)
    return peak() - before


def times_here(t: int, repeats: int) -> dict[str, float]:
    """Seconds of all ways, in this process; the best of those that took turns."""
    readers = {way: reader(way) for way in WAYS}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(repeats + 1):
        for way, read in readers.items():
            began = time.perf_counter()
            read(t if turn else 16)
            times[way].append(time.perf_counter() - began)
    return {way: min(found[1:]) for way, found in times.items()}


def elsewhere(*arguments: object) -> Any:
    """What a process of its own prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict]) -> str:
    """Markdown table, one line per size and way."""
    lines = ["| t | way | peak MB | of eager | of sdpa | ms | of eager |", "|" + "---|" * 7]
    for row in rows:
        base = {other["way"]: other for other in rows if other["t"] == row["t"]}
        eager, sdpa = base["eager"], base["sdpa"]
        lines.append(
            f"| {row['t']} | {row['way']} | {row['bytes'] / 1e6:.0f} | "
            f"{row['bytes'] / eager['bytes']:.2f} | {row['bytes'] / sdpa['bytes']:.2f} | "
            f"{row['seconds'] * 1e3:.0f} | {row['seconds'] / eager['seconds']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="t = 256 only, few repetitions")
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "T"), help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, metavar="T", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=5, help="timed passes; the best counts")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    if arguments.peak:
        print(json.dumps(peak_here(arguments.peak[0], int(arguments.peak[1]))))
        return
    if arguments.times:
        print(json.dumps(times_here(arguments.times, arguments.repeats)))
        return
    began, rows = provenance.facts(), []
    for t in [256] if arguments.quick else [256, 512, 1024]:
        times = elsewhere("--times", t, "--repeats", arguments.repeats)
        for way in WAYS:
            used = elsewhere("--peak", way, t)
            rows.append({"t": t, "way": way, "bytes": used, "seconds": times[way]})
            print(f"t={t:5d} {way:8s} {used / 1e6:8.0f} MB {times[way] * 1e3:8.0f} ms", flush=True)
    write({"facts": began, "rows": rows, "target": TARGET}, arguments.out)


def write(result: dict, out: Path) -> None:
    """Numbers as JSON, and a page that shows them."""
    rows, began = result["rows"], result["facts"]
    found = {(row["t"], row["way"]): row for row in rows}
    longest = rows[-1]["t"]
    ratio = found[longest, "trace"]["bytes"] / found[longest, "eager"]["bytes"]
    out.mkdir(parents=True, exist_ok=True)
    (out / "memory.json").write_text(json.dumps({**result, "trace_over_eager": ratio}, indent=1))
    text = f"# Memory\n\n{LAYERS} layers, 12 heads, batch of one, float32.\n\n{table(rows)}\n\n"
    text += f"An AGF trace of {longest} tokens needs {ratio:.2f} times the memory of the plain "
    text += f"eager forward and backward pass; the target is at most {TARGET}."
    if (began["machine"]["load_average"] or 0) > (began["machine"]["cores"] or 1):
        text += " Other work kept the machine busy: the times are rough."
    text += "\n\n" + "".join(
        f"    {line.strip()}\n"
        for line in (__doc__ or "").splitlines()
        if line.startswith("    ") and "python" not in line
    )
    text += "\nMade by `python benchmarks/memory.py`; " + provenance.describe(began) + "\n"
    (out / "memory.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
