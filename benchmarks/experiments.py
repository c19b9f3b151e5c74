"""Run the experiments of configs/experiment with several seeds; write docs/results.md and their headers.

    python benchmarks/experiments.py [NAME ...] [key=value ...] [--seeds 3]     e.g. makemore_lstm data.path=names.txt
    python benchmarks/experiments.py --commands                                 whole commands, start-up included
    python benchmarks/experiments.py --sweep NAME sweep.csv                     keep the table of a sweep of SWEEPS
    python benchmarks/experiments.py --tables                                   nothing; writes what is stored again
    python benchmarks/experiments.py --baselines FOLDER     what every language model and forecast is held against;
                                                            FOLDER holds names.txt, tinyshakespeare.txt, ETTh1.csv

One process, one thread; CPU seconds are user + system time.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import layerlab
from layerlab.build import config_dir
from layerlab.contract import LayerlabError
from layerlab.sweep.stats import half_width

ROOT = Path(__file__).parents[1]
COSTS = ROOT / "benchmarks" / "results" / "commands.json"
BASELINES = ROOT / "benchmarks" / "results" / "baselines.json"
RESULTS = ROOT / "benchmarks" / "results" / "experiments.json"


def measure(name: str, overrides: list[str], seeds: int) -> dict:
    """Test figures of one experiment over seeds 0 ... n - 1."""
    runs = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as logs, contextlib.redirect_stdout(io.StringIO()):
            own = (f"seed={seed}", f"logs={logs}", "progress=none")
            runs.append(layerlab.train(f"experiment={name}", *overrides, *own))
    figure = "test/" + runs[0].results["monitor"].split("/")[1]
    values = [r.metrics[figure] for r in runs]
    return {
        "metric": figure,
        "values": values,
        "mean": statistics.mean(values),
        "half_width_95": half_width(values),
        "n": seeds,
        "fit_cpu_s": statistics.mean(r.results["cpu_seconds"]["fit"] for r in runs),
        "steps": runs[0].results["steps"],
        "parameters": runs[0].results["parameters"],
        "machine": f"{_machine()}, 1 thread, torch {torch.__version__}, Python {platform.python_version()}",
    }


def _machine() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"


def summary(r: dict) -> str:
    """One result in one line."""
    interval = f"{_interval(r)} (n={r['n']})"
    return f"{r['metric']} {interval}   {r['fit_cpu_s']:.1f} CPU s training, {r['machine']}"


def _interval(r: dict) -> str:
    """Mean and 95 % interval; the one value of a single seed."""
    return f"{r['mean']:.4f}" + (f" ± {r['half_width_95']:.4f}" if r["n"] > 1 else "")


def header(name: str, r: dict) -> None:
    """Put the command and its result into the header of the experiment's yaml."""
    file = config_dir() / "experiment" / f"{name}.yaml"
    kept = [line for line in file.read_text("utf-8").splitlines() if not line.startswith(("# python", "# test/"))]
    lines = [kept[0], f"# python train.py experiment={name}", f"# {summary(r)}", *kept[1:]]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


COMMANDS = {
    "python -c 'import torch'": ["-c", "import torch"],
    "python train.py --help": ["train.py", "--help"],
    "python train.py --cfg job": ["train.py", "--cfg", "job"],
    "python train.py modle=lstm": ["train.py", "modle=lstm"],
    "python train.py": ["train.py", "hydra.run.dir={tmp}"],
    "python train.py model=lstm": ["train.py", "model=lstm", "hydra.run.dir={tmp}"],
}


def commands(rounds: int = 5) -> dict[str, float]:
    """CPU seconds of whole commands, the least of `rounds`."""
    found = {}
    for name, arguments in COMMANDS.items():
        costs = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as tmp:
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                command = [sys.executable, *(a.format(tmp=tmp) for a in arguments)]
                subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
            costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        found[name] = min(costs)
        print(f"{name:32} {found[name]:.2f} CPU s")
    return found


def command_table(found: dict[str, float]) -> str:
    """Costs of whole commands as markdown."""
    torch_s = found["python -c 'import torch'"]
    lines = ["| command | CPU s (least of 5) | ÷ import torch |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{n}` | {s:.2f} | {s / torch_s:.2f} |" for n, s in found.items()])


TRASHNET = "data=image_folder data.path=../shared/data/trashnet"  # 504 training, 270 test photos of six classes
SWEEPS = {  # name -> the command whose table is kept in results/sweep_NAME.csv
    "arms_trashnet": "python train.py -m experiment=transfer_500_probe,transfer_500_lp_ft,transfer_500_finetune "
    f"{TRASHNET} 'seed=range(3)'",
    "probe_trashnet": f"python train.py -m model=pretrained {TRASHNET} data.fit=crop,squash,pad data.size=128,224 "
    "'seed=range(3)'",
    "cnn_trashnet": f"python train.py -m experiment=transfer_500_cnn {TRASHNET} data.size=64 'seed=range(3)'",
    "decay_trashnet": f"python train.py -m model=pretrained {TRASHNET} optimizer.weight_decay=.01,.02 'seed=range(5)'",
    "warmup_trashnet": f"python train.py -m model=pretrained {TRASHNET} data.size=64 freeze=none freeze.bn=frozen "
    "schedule.warmup=.05,.1 'seed=range(3)'",
    "activations_digits": "python train.py -m experiment=activation_sweep",
    "freeze_photos": "python train.py -m experiment=freeze_sweep",
}


def sweep_tables() -> str:
    """The kept tables of sweeps as markdown."""
    parts = []
    for name, command in SWEEPS.items():
        file = RESULTS.with_name(f"sweep_{name}.csv")
        if not file.exists():
            continue
        with file.open(newline="", encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
        lines = [f"`{command}`", "", f"| setting | {rows[0]['figure']} ± 95 % | n | trainable | CPU s a run |"]
        lines.append("|---|---|---|---|---|")
        for r in rows:
            spread = f" ± {float(r['half_width_95']):.3f}" if r["half_width_95"] else ""
            value = f"{float(r['mean']):.3f}{spread}"
            lines.append(
                f"| {r['setting']} | {value} | {r['n']} | {int(r['parameters']):,} | {float(r['cpu_s']):.1f} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


ORDERS = (2, 3, 4, 5, 6)
HORIZONS = (96, 192, 336, 720)
FORECASTS = {
    "last value": ["model=naive"],
    "mean of 24 h": ["model=naive", "model.over=24"],
    "seasonal naive, 24 h": ["model=seasonal_naive"],
    "ridge on x": ["model=ridge", "model.subtract_last=false"],
    "ridge on x - last": ["model=ridge"],
    "ridge on x - last, look-back 96": ["model=ridge", "data.lookback=96"],
}


def baselines(folder: Path) -> dict[str, dict[str, float]]:
    """Test figures of the models without a gradient: n-grams by order, forecasts of ETTh1 by horizon."""
    texts = {
        "names": ["data=names"],
        "makemore": ["data=makemore", f"data.path={folder / 'names.txt'}"],
        "shakespeare": ["experiment=shakespeare_ngram", f"data.path={folder / 'tinyshakespeare.txt'}"],
    }
    found: dict[str, dict[str, float]] = {}
    for name, data in texts.items():
        orders = [n for n in ORDERS if n < 6 or name == "shakespeare"]
        row = {str(n): _test([*data, "model=ngram", f"model.order={n}"], "test/nll") for n in orders}
        found[f"n-gram on {name}"] = row
        print(name, row)
    for name, model in FORECASTS.items():
        data = ["data=etth1", f"data.path={folder / 'ETTh1.csv'}"]
        found[name] = {str(H): _test([*model, *data, f"data.horizon={H}"], "test/mse") for H in HORIZONS}
        print(name, found[name])
    return found


def _test(overrides: list[str], figure: str) -> float:
    with tempfile.TemporaryDirectory() as logs, contextlib.redirect_stdout(io.StringIO()):
        return layerlab.train(*overrides, f"logs={logs}", "progress=none").metrics[figure]


def baseline_tables(found: dict[str, dict[str, float]]) -> str:
    """Both tables as markdown."""
    parts = []
    for what, columns, rows in (
        ("test/nll, Witten-Bell n-gram", [f"n = {n}" for n in ORDERS], [r for r in found if r.startswith("n-gram")]),
        (
            "test/mse, ETTh1, look-back 336 unless named",
            list(map(str, HORIZONS)),
            [r for r in found if not r.startswith("n-gram")],
        ),
    ):
        lines = [f"| {what} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for row in rows:
            values = [found[row].get(c.removeprefix("n = ")) for c in columns]
            lines.append(f"| {row} | " + " | ".join("" if v is None else f"{v:.3f}" for v in values) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def against(name: str, rows: dict[str, dict[str, float]]) -> str:
    """What the figure of an experiment is held against: the best n-gram of its text, ridge on ETTh1."""
    data = name.split("_")[0]
    if data == "etth1":  # with the same look-back
        short = "lookback: 96" in (config_dir() / "experiment" / f"{name}.yaml").read_text("utf-8")
        row = "ridge on x - last" + (", look-back 96" if short else "")
        return f"ridge {rows[row]['96']:.3f}" if row in rows else ""
    if not (found := rows.get(f"n-gram on {data}")):
        return ""
    order, value = min(found.items(), key=lambda pair: pair[1])
    return f"{order}-gram {value:.3f}"


def table(found: dict, rows: dict[str, dict[str, float]]) -> str:
    """The results as markdown, each beside what it is held against."""
    lines = [
        "| experiment | metric | mean ± 95 % | held against | min … max | n | training CPU s | steps | parameters |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in sorted(found.items()):
        interval = f"{_interval(r)} | {against(name, rows)}"
        interval += f" | {min(r['values']):.4f} … {max(r['values']):.4f}"
        gpu = ", " + r["machine"].partition(",")[0] if r["machine"].startswith("NVIDIA") else ""
        cost = f"{r['fit_cpu_s']:.1f}{gpu} | {r['steps']:,} | {r['parameters']:,}"
        lines.append(f"| `{name}` | {r['metric']} | {interval} | {r['n']} | {cost} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="*", help="names of experiments, default all; overrides for each of them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--commands", action="store_true", help="measure whole commands instead")
    parser.add_argument("--tables", action="store_true", help="measure nothing, write the stored results again")
    parser.add_argument("--baselines", type=Path, metavar="FOLDER", help="measure the baselines instead")
    parser.add_argument("--sweep", nargs=2, metavar=("NAME", "CSV"), help="keep the table of a sweep")
    options = parser.parse_args()
    if options.sweep:
        name, place = options.sweep
        if name not in SWEEPS:
            parser.error(f"--sweep {name}: not among {', '.join(SWEEPS)}")
        RESULTS.with_name(f"sweep_{name}.csv").write_text(Path(place).read_text("utf-8"), encoding="utf-8")
    rows = json.loads(BASELINES.read_text()) if BASELINES.exists() else {}
    if options.baselines:
        rows = baselines(options.baselines.absolute())
        BASELINES.write_text(json.dumps(rows, indent=1) + "\n")
    costs = json.loads(COSTS.read_text()) if COSTS.exists() else {}
    if options.commands:
        costs = commands()
        COSTS.write_text(json.dumps(costs, indent=1) + "\n")
    overrides = [a for a in options.arguments if "=" in a]
    names = [a for a in options.arguments if "=" not in a]
    if not (names or options.commands or options.baselines or options.tables or options.sweep):
        names = sorted(f.stem for f in (config_dir() / "experiment").glob("*.yaml"))
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names:
        try:
            found[name] = measure(name, overrides, options.seeds)
        except LayerlabError as e:
            print(f"{name:24} skipped: {e}")
            continue
        print(f"{name:24} {summary(found[name])}")
        RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for name in found:
        header(name, found[name])
    machines = sorted({r["machine"] for r in found.values()})
    (ROOT / "docs" / "results.md").write_text(
        "# Results\n\nWritten by `python benchmarks/experiments.py`. Each row is `python train.py experiment=NAME`\n"
        "over n seeds. The interval is the 95 % t-interval over seeds, without the sampling error of the test set.\n"
        f"Machine: {'; '.join(machines)}.\n\n{table(found, rows)}\n\n"
        "## Baselines\n\nWritten by `python benchmarks/experiments.py --baselines FOLDER`; no seed, no gradient.\n"
        "A network works when it passes them.\n\n"
        f"{baseline_tables(rows)}\n\n"
        "## Sweeps\n\nEach table is the sweep.csv of the command above it, kept by `python benchmarks/experiments.py\n"
        "--sweep NAME sweep.csv`. CPU seconds are of the whole run, two phases together where it has two.\n\n"
        f"{sweep_tables()}\n\n"
        "## Whole commands\n\nWritten by `python benchmarks/experiments.py --commands`, same machine.\n\n"
        f"{command_table(costs) if costs else 'not measured'}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
