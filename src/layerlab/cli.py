"""The verbs, `layerlab train|eval|predict|export|rerun|sweep|claim|report`. Heavy imports stay inside their verb."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from layerlab.build import ConfigError, config_dir
from layerlab.compose import compose, compose_data, composed, composer, explain, quote
from layerlab.contract import LayerlabError

USAGE = """layerlab VERB [key=value ...]

  train     train and test a model             layerlab train model=lstm data=names
  eval      test a finished run again          layerlab eval run=logs/...
  predict   answer new inputs with a run       layerlab predict run=logs/... input=photo.png output=preds.csv
  export    write a file to deploy             layerlab export run=logs/... format=onnx
  rerun     repeat a run and compare           layerlab rerun run=logs/...
  sweep     look at a sweep                    layerlab sweep status logs/sweeps/...
  claim     test a sentence of the text        layerlab claim name=zg_diverges
  report    a page of claims, sweeps, runs     layerlab report run=logs/...

Options of a verb: layerlab VERB --help"""


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Exit codes: 0 done, 1 failed, 2 refused (config, data, usage), 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    verb, *rest = argv
    # the user's own wish, read before it is set below, and handed on to the other ranks of a run
    trace = os.environ.setdefault("LAYERLAB_TRACE", os.environ.get("HYDRA_FULL_ERROR", "0")) == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes hydra.main raise instead of printing its own text and exiting 1
    try:
        if verb not in VERBS:
            raise LayerlabError(f"{verb}: unknown verb; {_nearest(verb)}")
        return VERBS[verb](rest) or 0
    except LayerlabError as e:
        return _fail(str(e), e.exit_code, trace)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, False)
    except (HydraException, OmegaConfBaseException) as e:
        return _fail("\n".join(_explained(e, rest)), 2, trace)
    except (FileExistsError, NotADirectoryError, PermissionError) as e:
        return _fail(
            f"{e.filename}: {e.strerror}; give a folder that can be written, see hydra.run.dir and logs", 2, trace
        )
    except Exception as e:  # anything else is our failure or the machine's: one line, the traceback on request
        hint = "" if trace else "  (HYDRA_FULL_ERROR=1 shows the traceback)"
        return _fail(f"{type(e).__name__}: {e}{hint}", 1, trace)


def _nearest(verb: str) -> str:
    from layerlab.build import suggest

    return suggest(verb, list(VERBS))


def _fail(text: str, code: int, trace: bool) -> int:
    if trace:
        raise  # called from an except block
    print(text, file=sys.stderr)
    return code


def _explained(error: Exception, argv: list[str]) -> list[str]:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path

    typed = get_args_parser().parse_known_args(argv)[0]
    path = create_config_search_path(str(config_dir()))
    if typed.config_dir:
        path.append("command-line", f"file://{Path(typed.config_dir).absolute()}")
    try:
        return explain(error, ConfigLoaderImpl(path), "train", [quote(o) for o in typed.overrides])
    except Exception:  # an explanation must not hide what it explains
        return [str(error).strip().splitlines()[0]]


def train(argv: list[str]) -> int:
    """Train and test; `-m` sweeps. One job per config, each with its own folder."""
    _refuse_hydra(argv)
    argv = _with_folds(argv)
    typed, sys.argv = sys.argv, [sys.argv[0], *(a if a.startswith("-") else quote(a) for a in argv)]

    failed: list[Exception] = []  # kept from Hydra, whose own errors are told apart by it

    @hydra.main(config_path=str(config_dir()), config_name="train", version_base="1.3")
    def job(config: DictConfig) -> float | None:
        try:
            return run_job(config)
        except Exception as e:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # it is the launcher that keeps it
            failed.append(e)
            return None

    def run_job(config: DictConfig) -> float | None:
        sys.argv = typed  # Lightning starts the other ranks with it
        checked = composed(config)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            from layerlab.sweep.engine import refuse_several_devices

            refuse_several_devices(checked.config)
        from layerlab.train.devices import prepare

        prepare(checked.config)
        from layerlab.train.run import fit

        run = fit(checked, _given_folder())
        return run.metrics.get(checked.config["objective"] or run.results.get("monitor", ""))

    try:
        job()
    except ValueError as e:  # Hydra's own
        raise ConfigError(*_explained(e, argv)) from e
    except OSError as e:  # Hydra makes a folder that is given
        if not any(a.startswith("hydra.") and "dir=" in a for a in argv):
            raise
        raise LayerlabError(f"{e.filename}: not writable ({e.strerror}); choose another folder") from e
    finally:
        sys.argv = typed
    if failed:
        raise failed[0]
    return 0


def _with_folds(argv: list[str]) -> list[str]:
    """data.folds=5 by itself is a sweep over the five folds."""
    folds = next((a.partition("=")[2] for a in argv if a.startswith("data.folds=")), "0")
    if not folds.isdecimal() or int(folds) < 2 or any(a.startswith("data.fold=") for a in argv):
        return argv
    if {"--help", "-h", "--cfg", "-c"} & set(argv):
        return argv
    sweep = [] if {"-m", "--multirun"} & set(argv) else ["-m"]
    return [*sweep, *argv, f"data.fold=range({folds})"]


HYDRA = ("hydra.run.dir=", "hydra.sweep.dir=", "hydra.sweep.subdir=", "hydra/launcher=", "hydra/sweeper=")
HYDRA += ("hydra.launcher.", "hydra.sweeper.", "hydra.job.name=", "hydra.verbose=", "hydra.output_subdir=")
SOURCES = ("--config-path", "-cp", "--config-name", "-cn")


def _refuse_hydra(argv: list[str]) -> None:
    """Refuse what would make Hydra itself build objects before our check, or read other configs than ours.

    Raises ConfigError with every finding.
    """
    findings = []
    for argument in argv:
        key = argument.lstrip("+~")
        if key.startswith("hydra") and (not key.startswith(HYDRA) or "_target_" in argument):
            findings.append(f"{argument}: not among what can be set of Hydra; that is {', '.join(HYDRA)}...")
        if argument.startswith("~"):
            findings.append(f"{argument}: nothing is removed; choose another option of the group, such as none or null")
        if argument.split("=")[0] in SOURCES:
            findings.append(f"{argument}: other configs than ours; add your own with --config-dir")
    if folder := get_args_parser().parse_known_args(argv)[0].config_dir:
        findings += [f"{file}: {_HYDRAS}" for file in sorted(Path(folder).rglob("*.yaml")) if _sets_hydra(file)]
    if findings:
        raise ConfigError(*dict.fromkeys(findings))


_HYDRAS = "sets callbacks or targets of Hydra, which would run before any check; take them out"


def _sets_hydra(file: Path) -> bool:
    """Whether a config of the user's would make Hydra build objects of its choice."""
    import yaml

    text = file.read_text("utf-8")
    if "hydra" in file.parts[:-1] or re.search(r"@package\s+hydra", text):
        return True
    try:
        node = (yaml.safe_load(text) or {}).get("hydra") or {}
    except (yaml.YAMLError, AttributeError):  # Hydra says what is wrong with it
        return False
    return "callbacks" in node or "_target_" in str(node)


def _given_folder() -> str | None:
    """The folder of this job where Hydra made one: a job of another launcher, or hydra.run.dir as typed."""
    state = HydraConfig.get()
    sweep = state.mode == RunMode.MULTIRUN
    return state.runtime.output_dir if sweep or any("run.dir=" in o for o in state.overrides.hydra) else None


def evaluate(argv: list[str]) -> int:
    """Test a finished run again, on its own data or on data changed by data.key=value."""
    if _asked_for_help("eval", argv):
        return 0
    changes = [a for a in argv if a.startswith(("data=", "data."))]
    config = compose(*(a for a in argv if a not in changes), name="eval").config
    folder = _finished(config["run"])
    data = _changed_data(folder, changes) if changes else None
    from layerlab.train.manifest import read_json
    from layerlab.train.run import evaluate as run_evaluate
    from layerlab.train.scores import line

    metrics = run_evaluate(str(folder), data, config["checkpoint"], config["split"])
    for name, value in metrics.items():
        print(f"{name:20} {value:.6f}")
    if "intervals" in (found := read_json(folder / "eval.json")):
        print(line(found))
    print(f"written  {folder / 'eval.json'}")
    return 0


def _finished(run: str) -> Path:
    """The folder of a run, its devices and threads prepared; refused before torch is loaded."""
    from layerlab.train.devices import prepare
    from layerlab.train.manifest import read_config

    folder = Path(run).expanduser()
    prepare(read_config(folder))
    return folder


def _changed_data(folder: Path, changes: list[str]) -> dict[str, Any]:
    """The data node that the run would have had with other data overrides."""
    from layerlab.train.manifest import read_config, read_json

    chosen = [c.partition("=")[2] for c in changes if c.startswith("data=")]
    keys = [c for c in changes if not c.startswith("data=")]
    if chosen:
        return compose_data(chosen[-1], *keys)
    new = compose_data(read_json(folder / "manifest.json")["choices"]["data"], *keys)
    changed = {k.partition("=")[0].removeprefix("data.").split(".")[0] for k in keys}
    return read_config(folder)["data"] | {k: v for k, v in new.items() if k in changed}


def predict(argv: list[str]) -> int:
    """Answer new inputs with a finished run: images, rows of a csv, the next values of a series, or samples."""
    if _asked_for_help("predict", argv):
        return 0
    config = compose(*argv, name="predict").config
    _finished(config["run"])
    import layerlab
    from layerlab.train.predict import write_csv

    run = layerlab.load(config["run"], config["checkpoint"])
    options = {k: config[k] for k in ("samples", "length", "temperature", "seed")}
    if config["plot"]:  # first: it says where there is none
        run.draw(config["input"] or "", Path(config["plot"]).expanduser())
    rows = run.predict(config["input"] or "", **options)
    for row in rows[:20]:
        print("  ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    if len(rows) > 20:
        print(f"... {len(rows)} rows")
    if config["plot"]:
        print(f"drawn    {config['plot']}")
    if config["output"]:
        write_csv(rows, Path(config["output"]).expanduser())
        print(f"written  {config['output']}")
    return 0


def export(argv: list[str]) -> int:
    """Write a finished run as a file to deploy, and compare its answers with those of the run."""
    if _asked_for_help("export", argv):
        return 0
    config = compose(*argv, name="export").config
    _finished(config["run"])
    from layerlab.train.run import export as run_export

    file, off = run_export(config["run"], config["format"], config["output"], config["checkpoint"])
    print(f"answers  differ from those of the run by {off:.1e} at most")
    print(f"written  {file}")
    return 0


def rerun(argv: list[str]) -> int:
    """Repeat a finished run and compare; 1 where it came out differently."""
    if _asked_for_help("rerun", argv):
        return 0
    folder = _finished(compose(*argv, name="rerun").config["run"])
    from layerlab.train.rerun import rerun as run_again

    report = run_again(folder)
    print(report)
    return int(report.verdict == "different")


def sweep(argv: list[str]) -> int:
    """`status DIR`: what stands where; `table DIR [control=SETTING]`: the table of what has finished, anew."""
    control = next((a.partition("=")[2] for a in argv if a.startswith("control=")), None)
    words = [a for a in argv if not a.startswith("control=")]
    if len(words) != 2 or words[0] not in ("status", "table"):
        raise LayerlabError("sweep: expected status DIR, or table DIR [control=SETTING]")
    from layerlab.sweep import ledger

    folder = Path(words[1]).expanduser()
    if words[0] == "status":
        print(ledger.status(folder))
        return 0
    from layerlab.sweep.table import leave

    done = [job for job in ledger.read_jobs(folder) if job.status == "ok"]
    if not done:
        raise LayerlabError(f"{folder}: no job has finished; see layerlab sweep status {folder}")
    print(leave(done, folder, control))
    return 0


def claim(argv: list[str]) -> int:
    """Test sentences: every run that is missing, the checks, the verdicts."""
    if _asked_for_help("claim", argv):
        return 0
    named = [f"name='{a.removeprefix('name=')}'" if a.startswith(("name=", "topic=")) else a for a in argv]
    config = compose(*named, name="claim").config
    from layerlab.claims import run as claims
    from layerlab.sweep.launch import warm_up

    found = claims.chosen(str(config["name"]))
    logs = Path(config["logs"]).expanduser() / "claim"
    how = config["size"], None if config["first_seed"] == "auto" else config["first_seed"]
    if len(found) > 1:  # to compose many takes as long as the imports; one that is refused should not wait for them
        warm_up()
    shared = composer()
    plans = [claims.check(one, *how, shared) for one in found]  # all of them before the first run
    known: dict[str, dict[str, Any]] = {}
    for one, planned in zip(found, plans, strict=True):
        print(claims.text(claims.run(one, logs, *how, planned=planned, known=known)), flush=True)
    return 0


def report(argv: list[str]) -> int:
    """A page of the claims and runs of a folder, of one run or sweep, or of several runs; `wandb DIR`: a dashboard."""
    if _asked_for_help("report", argv):
        return 0
    if argv[:1] == ["wandb"]:
        return _dashboard(argv[1:])
    config = compose(*map(quote, argv), name="report").config
    try:
        from layerlab.report import page
    except ModuleNotFoundError as e:
        raise LayerlabError('report: not installed; pip install "layerlab[report]"') from e
    place = Path(config["output"]).expanduser() if config["output"] else None
    folders = [Path(f).expanduser() for f in str(config["run"] or "").split(",") if f]
    if not folders:
        file = page.logs(Path(config["logs"]).expanduser(), config["size"], place)
    elif len(folders) > 1:
        file = page.compare(folders, place)
    else:
        file = page.one(folders[0], place)
    print(f"written  {file}")
    return 0


def _dashboard(argv: list[str]) -> int:
    """`DIR [project=P] [entity=E] [push=true]`: the dashboard of a sweep in wandb; pushed for those logged in."""
    known = {"project": "layerlab", "entity": "", "push": "false"}
    typed = dict(a.split("=", 1) for a in argv if "=" in a)
    words = [a for a in argv if "=" not in a]
    if len(words) != 1 or not typed.keys() <= known.keys():
        raise LayerlabError("report: expected wandb DIR [project=layerlab] [entity=NAME] [push=true]")
    options = known | typed
    folder = Path(words[0]).expanduser()
    if options["push"] not in ("true", "false"):
        raise LayerlabError(f"push={options['push']}: expected true or false")
    if options["push"] == "true" and not options["entity"]:
        raise LayerlabError("push=true: give entity=, the user or team whose project it is")
    from layerlab.sweep.ledger import read

    read(folder)  # refuses what is no sweep
    try:
        from layerlab.report import workspace
    except ModuleNotFoundError as e:
        raise LayerlabError('report: not installed; pip install "layerlab[report]"') from e
    file = workspace.write(folder, options["project"], options["entity"])
    print(f"written  {file}")
    if options["push"] == "true":
        print(f"pushed   {workspace.push(folder, options['project'], options['entity'])}")
    return 0


def _asked_for_help(verb: str, argv: list[str]) -> bool:
    if not {"-h", "--help"} & set(argv):
        return False
    print((config_dir() / f"{verb}.yaml").read_text(encoding="utf-8"))
    return True


VERBS = {
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "export": export,
    "rerun": rerun,
    "sweep": sweep,
    "claim": claim,
    "report": report,
}

if __name__ == "__main__":
    sys.exit(main())
