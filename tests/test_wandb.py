"""What lies in wandb's files, read back with `wandb leet inspect`, and what happens where its server is gone."""

import json
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.test_cli import ENVIRONMENT, cli

RUN = ("model=mlp", "trainer.max_epochs=2", "logger=wandb", "progress=none", "hydra.run.dir=out")


def records(file: Path) -> list[dict]:
    """The records of a run-ID.wandb."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(file.parent)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def only(found: list[dict], kind: str) -> dict:
    return next(r[kind] for r in found if r["type"] == kind)


def summary(found: list[dict]) -> dict:
    told = {}
    for record in found:
        if record["type"] == "summary":
            told |= record["summary"].get("update", {})
    return told


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/*run-*/*.wandb"))


def test_a_run_is_offline_and_quiet_with_its_config_pictures_and_tables(tmp_path):
    done = cli(*RUN, "logger=[wandb,tensorboard]", "logger.tags=[a]", "logger.group=g", "figures=[confusion]",
               cwd=tmp_path, WANDB_API_KEY="canary0" * 6)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "login" not in (done.stdout + done.stderr).lower()
    left = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert any("tfevents" in p.name for p in left)
    assert not [p for p in left if b"canary0" in p.read_bytes()]
    found = records(*files(tmp_path / "out"))
    run, told = only(found, "run"), summary(found)
    assert (run["run_group"], run["job_type"], run["tags"]) == ("g", "train", ["a"])
    assert run["config"]["update"]["optimizer"]["lr"] > 0  # nested
    measured = json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]
    assert told["test/acc"] == pytest.approx(measured["test/acc"])
    assert [r["history"]["item"]["val/acc"] for r in found if "val/acc" in r.get("history", {}).get("item", {})]
    assert told["figures/confusion._type"] == "image-file"
    assert told["tables/per_class._type"] == "table-file"
    assert only(found, "exit")["exit_code"] == 0
    assert not {r["type"] for r in found} & {"environment", "stats", "output", "requirements"}
    assert not [p for p in left if p.name == "diff.patch"]


def test_a_failed_run_is_failed(tmp_path):
    done = cli(*RUN, "optimizer=sgd", "optimizer.lr=1e30", "trainer.gradient_clip_val=0", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert only(records(*files(tmp_path / "out")), "exit")["exit_code"] == 1


@pytest.mark.slow
def test_a_resumed_run_is_one_run(tmp_path):
    start = [sys.executable, str(Path(__file__).parents[1] / "train.py"), *RUN, "trainer.max_epochs=30"]
    child = subprocess.Popen(start, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        while child.poll() is None and not list((tmp_path / "out").glob("checkpoints/*.ckpt")):
            pass
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 143, child.stderr.read()
    finally:
        child.kill()
        child.stderr.close()
    done = cli("resume=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = [only(records(f), "run")["run_id"] for f in files(tmp_path / "out")]
    assert len(runs) == 2
    assert len(set(runs)) == 1
    assert runs[0] == json.loads((tmp_path / "out" / "manifest.json").read_text())["wandb_id"]


@pytest.mark.slow
def test_a_sweep_is_a_group_with_a_summary(tmp_path):
    done = cli(
        *("-m", "model=mlp", "model.width=8,16", "seed=0,1", "trainer.max_epochs=1", "progress=none"),
        *("logger=wandb", "hydra.sweep.dir=s"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    jobs = [records(*files(job)) for job in sorted((tmp_path / "s").glob("0*"))]
    assert [(r["run_group"], r["job_type"]) for r in (only(j, "run") for j in jobs)] == [("s", "sweep")] * 4
    assert len({only(j, "run")["run_id"] for j in jobs}) == 4
    widths = {only(j, "run")["config"]["update"]["model"]["width"] for j in jobs}
    assert widths == {8, 16}
    found = records(*files(tmp_path / "s"))
    told, facts = summary(found), json.loads((tmp_path / "s" / "statistics.json").read_text())
    assert only(found, "run")["job_type"] == "summary"
    assert told["best"] == facts["best"]
    assert told["best/mean"] == pytest.approx(facts["settings"][0]["mean"])
    assert told["tables/sweep._type"] == "table-file"
    assert told["figures/sweep._type"] == "image-file"


def test_two_runs_of_one_process_are_two(train):
    for seed in (0, 1):
        run = train("model=neuron", "logger=wandb", "trainer.max_epochs=1", f"seed={seed}")
        assert len(list(run.folder.rglob("*.wandb"))) == 1


# --- a server that does not answer


@pytest.mark.row(41)
@pytest.mark.slow
@pytest.mark.parametrize("key", [{}, {"WANDB_API_KEY": "0" * 40}], ids=["no key", "dead server"])
def test_online_that_cannot_start_goes_on_offline(key, tmp_path):
    dead = {"WANDB_BASE_URL": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    done = cli(*RUN, "logger.mode=online", cwd=tmp_path, **dead, **key)
    assert done.returncode == 0, done.stderr
    assert "Going on offline" in done.stderr
    assert list((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))


class Server(BaseHTTPRequestHandler):
    """Answers what wandb asks when a run starts, then is gone."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        project = {"id": "p", "name": "layerlab", "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "b", "name": asked["variables"].get("name"), "displayName": "r", "config": "{}"}
        found = {"upsertBucket": {"bucket": bucket | {"project": project, "historyLineCount": 0}, "inserted": True}}
        started = "UpsertBucket" in asked["query"]
        body = json.dumps({"data": found if started else {"viewer": None, "entity": None}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if started:
            threading.Thread(target=self.server.shutdown).start()
            self.server.socket.close()
            self.close_connection = True


@pytest.mark.row(41)
@pytest.mark.slow
def test_a_network_that_is_cut_in_mid_run_holds_nothing_up_for_ever(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_API_KEY": "0" * 40}
    done = cli(*RUN, "logger.mode=online", cwd=tmp_path, HOME=str(tmp_path), **where)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("logger=wandb") == 1, done.stderr
    assert "wandb sync" in done.stderr
    (file,) = files(tmp_path / "out")
    assert not file.parent.name.startswith("offline")  # it had started online
    assert summary(records(file))["test/acc"] == pytest.approx(
        json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]["test/acc"]
    )
