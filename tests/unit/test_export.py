"""Exported files answer as the run does, in a process that knows nothing of layerlab."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tests.formats import write_classes

from layerlab.contract import LayerlabError
from layerlab.train import export
from layerlab.train.run import export as export_run

onnxruntime = pytest.importorskip("onnxruntime", reason="the exporter is an optional extra")

RUNS = {
    "cnn": ["model=cnn", "data=digits"],
    "mlp": ["model=mlp", "data=table", "data.name=diabetes", "task=regress"],
    "lstm": ["model=lstm", "data=mnist1d"],
    "transformer": ["model=transformer", "data=names"],
    "nlinear": ["model=nlinear", "data=series"],
    "pretrained": ["model=pretrained", "model.weights=null", "model.backbone=test_efficientnet", "data=digits"],
}
FOREIGN = """
import json, sys, numpy as np
x = np.load(sys.argv[2])
if sys.argv[1].endswith(".onnx"):
    import onnxruntime
    out = onnxruntime.InferenceSession(sys.argv[1]).run(None, {"x": x})
else:
    import torch
    out = [v.detach().numpy() for v in torch.export.load(sys.argv[1]).module()(torch.from_numpy(x))]
assert "layerlab" not in sys.modules
np.save(sys.argv[3], out[0])
"""


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
@pytest.mark.parametrize("name", RUNS)
def test_the_file_answers_as_the_run_for_any_batch_size(name, format, train):
    run = train(*RUNS[name], "trainer.max_steps=3")
    file, off = export_run(str(run.folder), format)
    assert off <= 1e-4
    for n in (1, 7):
        x, _ = run.data.splits["test"].read(torch.arange(n), None)
        if run.data.spec.kind == "tokens":
            x = torch.nn.functional.pad(x, (0, run.data.spec.steps - x.shape[1]))
        with torch.no_grad():
            expected = run.model.answer(x)
        (found, *_) = export.answers(file, export.raw(x, run.data.spec))
        if run.data.spec.task == "regress":
            found = (found - torch.tensor(run.data.spec.target_mean)) / torch.tensor(run.data.spec.target_std)
        if run.data.spec.task == "forecast":
            found = (found - torch.tensor(run.data.spec.mean)) / torch.tensor(run.data.spec.std)
        loose = 0.1 if name in ("cnn", "pretrained") else 1e-3  # digits are sixteenths, pixels 255ths
        torch.testing.assert_close(found, expected, rtol=loose, atol=loose)


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_a_fresh_process_gives_the_class_of_a_photo_that_predict_gives(format, train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "photos", 12)
    own = ("data=image_folder", "data.path=photos", "data.size=16", "data.fit=pad")
    run = train("model=cnn", *own, "trainer.max_epochs=3")
    file, _ = export_run(str(run.folder), format)
    facts = json.loads((file.parent / "meta.json").read_text())
    assert facts["classes"] == ["green", "red"]
    assert facts["resize"] == {"size": [16, 16], "fit": "pad", "interpolation": "bicubic"}
    photo = tmp_path / "photos" / "red" / "3.png"
    from layerlab.data import images

    pixels = images.decode(photo, "photo", (3, 16, 16), Image.Resampling.BICUBIC, "pad")
    np.save(tmp_path / "x.npy", pixels[None].copy())
    (tmp_path / "foreign.py").write_text(FOREIGN)
    command = [sys.executable, "foreign.py", str(file), "x.npy", "out.npy"]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PATH": "", "OMP_NUM_THREADS": "1"})
    logits = torch.from_numpy(np.load(tmp_path / "out.npy"))
    (row,) = run.predict(str(photo))
    p = logits.softmax(1)[0]
    assert row["class"] == facts["classes"][int(p.argmax())]
    assert row["p_red"] == pytest.approx(float(p[1]), abs=1e-4)


def test_class_names_are_inside_the_file(train):
    run = train("model=mlp", "data=digits", "trainer.max_steps=1")
    onnx_file, _ = export_run(str(run.folder), "onnx")
    session = onnxruntime.InferenceSession(str(onnx_file))
    facts = json.loads(session.get_modelmeta().custom_metadata_map["layerlab"])
    assert facts["classes"] == list("0123456789")
    assert [o.name for o in session.get_outputs()] == ["logits", "probabilities"]
    assert session.get_inputs()[0].type == "tensor(uint8)"
    torch_file, _ = export_run(str(run.folder), "torch_export")
    extra = {"layerlab.json": ""}
    torch.export.load(str(torch_file), extra_files=extra)
    assert json.loads(extra["layerlab.json"])["classes"] == list("0123456789")


def test_photos_that_are_gone_do_not_stand_in_the_way(train, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "photos", 12)
    run = train("model=cnn", "data=image_folder", "data.path=photos", "data.size=16", "trainer.max_epochs=1")
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    file, off = export_run(str(run.folder), "onnx")
    assert file.is_file()
    assert off <= 1e-4
    assert "compared on noise" in capsys.readouterr().err


def test_a_file_that_answers_otherwise_is_not_written(train, monkeypatch):
    run = train("model=mlp", "data=digits", "trainer.max_steps=1")
    right = export.answers
    monkeypatch.setattr(export, "answers", lambda file, x: [v + 0.01 for v in right(file, x)])
    with pytest.raises(LayerlabError, match=r"answers otherwise than the run, by 0\.01; not written"):
        export_run(str(run.folder), "onnx")
    assert not list((run.folder / "export" / "onnx").iterdir())


def test_nothing_that_lies_in_the_folder_is_lost(train, tmp_path):
    run = train("model=mlp", "data=digits", "trainer.max_steps=1")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("precious")
    with pytest.raises(LayerlabError, match="holds other things; give a folder of its own"):
        export_run(str(run.folder), "onnx", str(tmp_path / "photos"))
    assert (tmp_path / "photos" / "mine.jpg").read_text() == "precious"
    for _ in range(2):  # its own files may be written again
        export_run(str(run.folder), "onnx", str(tmp_path / "deploy"))
    assert sorted(p.name for p in (tmp_path / "deploy").iterdir()) == ["meta.json", "model.onnx"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["model=ngram", "data=names"], "NGram is solved, not a network"),
        (["model=seq2seq", "data=spelling", "data.path={tmp}/p.tsv"], "a transduction writes symbol by symbol"),
    ],
)
def test_what_cannot_be_exported_is_said(options, words, train, tmp_path):
    from tests.formats import write_pairs

    write_pairs(tmp_path / "p.tsv")
    run = train(
        *(o.format(tmp=tmp_path) for o in options), "trainer.max_steps=1" if "ngram" not in options[0] else "seed=0"
    )
    with pytest.raises(LayerlabError, match=words):
        export_run(str(run.folder))


def test_a_missing_exporter_is_cured_by_the_line_that_is_printed(train, monkeypatch):
    run = train("model=mlp", "trainer.max_steps=1")
    monkeypatch.setattr(export, "_installed", lambda package: package != "onnxscript")
    with pytest.raises(LayerlabError, match=r"needs onnxscript; pip install 'layerlab\[export\]'"):
        export_run(str(run.folder))
