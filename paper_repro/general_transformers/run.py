"""Experiments after "Attention Flows for General Transformers" (Metzger et al., 2022).

    python paper_repro/general_transformers/run.py all            # the committed results
    python paper_repro/general_transformers/run.py bias --quick --out FOLDER

`decoder`, `encoder-decoder` and `bias` need the published small models in `--data`, `cls` the
SST-2 sentences there; `reasoning` and the reversal half of `encoder-decoder` need nothing beside
this repository. `--full` takes more texts than the committed results.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from classification_token import cls_report
from decoder_influence import decoder_report
from early_tokens import early_report
from encoder_decoder import encoder_decoder_report
from general_results import Report
from reasoning_influence import reasoning_report

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1].parent / "shared" / "data"
SIZES = ("quick", "usual", "full")
EXPERIMENTS: dict[str, Callable[[Path, Path, str], Report]] = {
    "decoder": decoder_report,
    "encoder-decoder": encoder_decoder_report,
    "bias": early_report,
    "cls": cls_report,
    "reasoning": reasoning_report,
}
ALONE = ("encoder-decoder", "reasoning")  # what can be done without `--data`


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", nargs="?", default="all", choices=[*EXPERIMENTS, "all"])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick",
                      help="a few texts: a minute or two")  # fmt: skip
    size.add_argument("--full", dest="size", action="store_const", const="full",
                      help="more texts than the committed results")  # fmt: skip
    parser.add_argument(
        "--data", type=Path, default=DATA,
        help="folder of data and published models (default: ../shared/data)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the results")
    parser.set_defaults(size="usual")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    given = arguments()
    torch.set_num_threads(1)
    wanted = list(EXPERIMENTS) if given.experiment == "all" else [given.experiment]
    missing = [] if given.data.is_dir() else [name for name in wanted if name not in ALONE]
    for name in wanted:
        if name in missing:
            continue
        command = f"python paper_repro/general_transformers/run.py {name}"
        command += f" --{given.size}" * (given.size != "usual")
        print(EXPERIMENTS[name](given.data, given.out, given.size).write(given.out, command))
    if missing:
        print(f"Not measured, for want of {given.data}: {', '.join(missing)}")


if __name__ == "__main__":
    main()
