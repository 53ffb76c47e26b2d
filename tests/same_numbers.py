"""Do two versions of the code compute the same numbers, to the last bit?

Record with one version, record again with another, and compare:

    python tests/same_numbers.py record before.json
    python tests/same_numbers.py record after.json
    python tests/same_numbers.py compare before.json after.json

A record holds what the command line leaves behind, on one thread: run names, logs, hashes of
weights, every row and per-example value, pictures, exported tensors, statistics of masks, and what
is printed. What depends on the clock or names a module is left out. `record FILE --keep DIR` leaves
the folder of results there, for another version to go on with; `finish DIR` asks whether it does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# what the clock says, and where the code stands
VOLATILE = {"seconds", "created", "source", "maebench_version", "package_version", "ms_per_256"}
VOLATILE |= {"pretraining_seconds", "sha256", "file"}
QUICK = ("--budget", "steps=50", "-o", "finetune.epochs=2", "--device", "cpu")
RUNS: dict[str, tuple[str, ...]] = {
    **{m: ("run", "--masking", m, *QUICK) for m in ("random", "block", "hard", "attention")},
    **{o: ("run", "--objective", o, *QUICK) for o in ("simmim", "variational")},
    "contractive": ("run", "--objective", "contractive", *QUICK),
}
SHORT = ("--budget", "steps=20", "--device", "cpu")
PRETRAINED: dict[str, tuple[str, ...]] = {
    **{o: ("--objective", o) for o in ("autoencoder", "denoising", "sparse", "supervised")},
    "scheduled": ("-o", "schedule.ratio=0.5", "-o", "optimiser.accumulate=2"),
    "clipped": ("-o", "optimiser.clip=0.5", "--seed", "3", "--limit", "300"),
    "epochs": ("--budget", "epochs=0.7", "--ratio", "0.5"),
    "flops": ("--budget", "flops=2e9"),
    "hog": ("-o", "objective.target=hog", "--image-size", "16"),
    "multi": ("--masking", "multi-block", "--image-size", "16"),
    "parts": ("--masking", "parts"),
    "hint": ("--masking", "attention", "-o", "masking.hide=hint", "-o", "masking.of=encoder"),
    "swin": ("--encoder", "swin-nano", "--objective", "simmim", "--image-size", "32"),
}
# on a folder of colour images, which is all that the official code knows
COLOUR: dict[str, tuple[str, ...]] = {
    "colour": (),
    "cross": ("-o", "objective.decoder=cross-attention"),
    "features": ("-o", "objective.target=features"),
    "low-pass": ("-o", "objective.target=low-pass", "-o", "objective.on=all"),
    "l1": ("-o", "objective.loss=smooth-l1", "--masking", "units", "--ratio", "0.5"),
    "registers": ("-o", "encoder.registers=2", "--masking", "green-noise"),
}
SIDE, IMAGES = 16, 24  # pixels, and images of each class
EVALUATIONS = ("knn", "logistic", "attentive-probe", "low-shot", "layers", "retrieval")
MAE_PROTOCOLS = (("linear-probe", "protocol=mae", "epochs=3"), ("finetune", "epochs=3"))
STATISTICS = "import maebench, sys; print(maebench.mask_statistics().to_json(orient='records'))"


class Results:
    """A folder of results and the commands that fill it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, {}
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("MAEBENCH_")}
        self.environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "200"}

    def command(self, *words: str, code: str | None = None) -> str:
        """What a command prints; its failure is told and kept."""
        program = ["-c", code] if code else ["-m", "maebench"]
        done = subprocess.run(
            [sys.executable, *program, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(f"{' '.join(words)}: {done.stderr.strip()[-500:]}", file=sys.stderr)
        return done.stdout + f"exit {done.returncode}\n"

    def say(self, name: str, *words: str) -> None:
        """Runs a command and keeps what it prints."""
        print(name, file=sys.stderr)
        self.said[name] = self.command(*words)


def record(folder: Path) -> dict[str, Any]:
    """Fills a folder of results and gives what stands in it."""
    results = Results(folder)
    for name, words in RUNS.items():
        results.say(name, *words)
    for name, words in PRETRAINED.items():
        results.say(name, "pretrain", *SHORT, *words)
    model = next(folder.glob("results/runs/digits-vit-nano-mae-random-0.75-s0-*")).name
    for name in EVALUATIONS:
        results.say(f"eval {name}", "eval", name, model, "untrained:" + model, "--device", "cpu")
    results.say(
        "eval across", "eval", "reconstruction", model, "-o", "across=true", "--device", "cpu"
    )
    for name, *options in MAE_PROTOCOLS:
        flags = [word for option in options for word in ("-o", option)]
        results.say(f"eval {name} {options}", "eval", name, model, *flags, "--device", "cpu")
    for name, words in {
        "table": (),
        "table by": ("--by", "objective,masking"),
        "csv": ("--format", "csv"),
        "markdown": ("--format", "markdown"),
        "latex": ("--format", "latex"),
        "html": ("--format", "html"),
        "metric": ("--metric", "reconstruction/psnr"),
    }.items():
        results.say(f"table: {name}", "table", *words)
    statistics = results.command(code=STATISTICS).rpartition("exit")[0]
    return {"printed": results.said, "statistics": plain(json.loads(statistics)), **content(folder)}


def record_colour(folder: Path) -> dict[str, Any]:
    """The same for colour images: parts of the masked autoencoder, exports and foreign weights."""
    results = Results(folder)
    draws = np.random.default_rng(0)
    for split in ("train", "test"):
        for shade in range(3):
            for number in range(IMAGES):
                pixels = draws.integers(0, 160, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[..., shade] += 80
                path = folder / "images" / split / f"class{shade}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    data = ("--dataset", "folder:images", "--device", "cpu")
    for name, words in COLOUR.items():
        results.say(name, "pretrain", *data, "--budget", "steps=20", *words)
    model = min(folder.glob("results/runs/*-mae-random-0.75-s0-*"), key=created).name
    for to, out in (("official", "official.pth"), ("timm", "timm.safetensors"), ("hf", "hf")):
        results.say(f"export {to}", "export", model, "--to", to, "--out", out)
    for weights in ("file:official.pth", "file:hf", "timm:vit_tiny_patch16_224,image-size=32"):
        results.say(f"eval {weights}", "eval", "knn", weights, *data)
    results.say("eval reconstruction", "eval", "reconstruction", "file:official.pth", *data)
    return {"printed": results.said, **content(folder)}


def created(folder: Path) -> str:
    """When a run began."""
    return str(json.loads((folder / "config.json").read_text())["created"])


def content(folder: Path) -> dict[str, Any]:
    """Everything in a folder of results that two versions should have in common."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        steps = sorted(path.parents[1].glob("step-*"))  # all but the last depend on the clock
        value = None if path.parent in steps[:-1] else read(path)
        if value is not None:
            found[path.relative_to(folder).as_posix()] = value
    return found


def read(path: Path) -> Any:
    """One file's content as JSON values; None where it says nothing of numbers."""
    if path.name in ("environment.json", "spent.json.lock") or path.suffix in (".lock", ".log"):
        return None
    if path.suffix == ".json":
        return plain(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [plain(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: digest(arrays[name]) for name in arrays}
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return {name: digest(value) for name, value in load_file(path).items()}
    if path.suffix == ".pth":
        import torch

        weights = torch.load(path, weights_only=True)["model"]
        return {name: digest(value.numpy()) for name, value in weights.items()}
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(array: np.ndarray[Any, Any]) -> str:
    """Shape, type and bytes of an array in few characters."""
    mark = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return f"{array.dtype}{list(array.shape)} {mark}"


def plain(value: Any) -> Any:
    """A JSON value without what depends on the clock."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in VOLATILE}
    return [plain(item) for item in value] if isinstance(value, list) else value


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Where two records are not equal, each in one line."""
    if isinstance(before, dict) and isinstance(after, dict):
        lines = []
        for key in sorted(before.keys() | after.keys()):
            here = f"{place}/{key}"
            if key not in before or key not in after:
                lines.append(f"{here}: only {'after' if key not in before else 'before'}")
            else:
                lines += differences(before[key], after[key], here)
        return lines
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{place}[{i}]")]
    return [] if before == after else [f"{place}:\n  - {before!r}\n  + {after!r}"]


def finish(folder: Path) -> list[str]:
    """What this version does not read, finish or find as done in a folder of another's."""
    results = Results(folder)
    before = {p: p.stat().st_mtime_ns for p in folder.glob("results/*/*/records/*")}
    wrong = []
    for name, words in RUNS.items():
        if not results.command(*words).endswith("exit 0\n"):
            wrong.append(f"{name}: failed")
    after = {p: p.stat().st_mtime_ns for p in folder.glob("results/*/*/records/*")}
    wrong += [f"{p}: written again" for p in after if after[p] != before.get(p)]
    unfinished = next(folder.glob("results/runs/*-supervised-*"))
    whole = content(unfinished)
    cut = sorted(unfinished.glob("checkpoint/step-*"))[-1]
    manifest = json.loads((cut / "manifest.json").read_text())
    if manifest["step"] != manifest["total"]:
        wrong.append(f"{unfinished.name}: not finished before")
    said = results.command("pretrain", *SHORT, *PRETRAINED["supervised"])
    if not re.search("exit 0", said) or content(unfinished) != whole:
        wrong.append(f"{unfinished.name}: not found as done")
    return wrong


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("record")
    made.add_argument("file", type=Path)
    made.add_argument("--keep", type=Path, help="a folder for the results, which stays")
    made.add_argument("--colour", action="store_true", help="the part on colour images alone")
    compared = commands.add_parser("compare")
    compared.add_argument("before", type=Path)
    compared.add_argument("after", type=Path)
    commands.add_parser("finish").add_argument("folder", type=Path)
    chosen = parser.parse_args()
    if chosen.command == "record":
        with tempfile.TemporaryDirectory() as place:
            folder = chosen.keep or Path(place)
            folder.mkdir(parents=True, exist_ok=True)
            made = record_colour(folder) if chosen.colour else record(folder)
            chosen.file.write_text(json.dumps(made, indent=1, sort_keys=True))
        return 0
    if chosen.command == "finish":
        lines = finish(chosen.folder)
    else:
        lines = differences(*(json.loads(p.read_text()) for p in (chosen.before, chosen.after)))
    print("\n".join(lines) or "equal to the last bit")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
