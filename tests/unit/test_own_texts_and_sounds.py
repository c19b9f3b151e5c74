"""Labelled texts and sounds of one's own."""

import math

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from tests.formats import write_reviews, write_tones

from layerlab.contract import UNKNOWN, DataError, LayerlabError, Mismatch
from layerlab.data.audio_folder import AudioFolder, log_mel, mel_bands, read_wav
from layerlab.data.text_csv import TextCSV
from layerlab.train.run import evaluate


def test_texts_become_ids_of_their_words(tmp_path):
    write_reviews(tmp_path / "r.csv")
    data = TextCSV(path=str(tmp_path / "r.csv"), longest=12)
    spec = data.spec
    assert spec.vocabulary[:2] == ("", UNKNOWN)
    assert {"splendid", "dreadful", "film", ",", "it"} <= set(spec.vocabulary)
    x, names = data.encode_text("A splendid zebra")
    assert [spec.vocabulary[i] for i in x[0, :3]] == ["a", "splendid", UNKNOWN]
    assert not x[0, 3:].any()
    assert names == ["A splendid zebra"]
    batch, _ = data.splits["train"].read(torch.arange(4), None)
    assert batch.shape[1] <= 12
    chars = TextCSV(path=str(tmp_path / "r.csv"), unit="chars", vocabulary=5, longest=30)
    assert len(chars.spec.vocabulary) == 7


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,label\na,x\n,y\n", r'r\.csv row 3 column "text": empty'),
        ("text,label\na,x\nb,x\n", "column 'label' has one value"),
        ("txt,label\na,x\n", r"data\.text='text': no such column in r\.csv; did you mean txt\?"),
    ],
)
def test_wrong_tables_of_text_are_named(content, words, tmp_path):
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        TextCSV(path=str(tmp_path / "r.csv")).spec  # noqa: B018


def test_a_bag_of_words_learns_which_word_decides_and_answers_new_texts(tmp_path, train):
    write_reviews(tmp_path / "r.csv", 200)
    run = train("model=bow", "data=text_csv", f"data.path={tmp_path / 'r.csv'}", "trainer.max_epochs=15")
    assert run.metrics["test/acc"] == 1.0
    assert run.predict("a splendid film")[0]["class"] == "good"
    assert run.predict("dreadful " * 100)[0]["class"] == "bad"  # longer than a file's name may be
    with pytest.raises(LayerlabError, match=r"input='missing\.csv': no such file"):
        run.predict("missing.csv")
    node = {"_target_": "layerlab.data.text_csv.TextCSV", "path": str(tmp_path / "r.csv"), "unit": "chars"}
    with pytest.raises(Mismatch, match=r"data\.unit=chars: the run reads it as words"):
        evaluate(str(run.folder), node)
    (tmp_path / "new.csv").write_text("text\nit was dreadful\nsplendid\n")
    assert [row["class"] for row in run.predict(str(tmp_path / "new.csv"))] == ["bad", "good"]


def test_bands_are_evenly_wide_in_mel_and_a_tone_stands_in_its_own():
    bands = mel_bands(16_000, 512, 40)
    peaks = bands.argmax(1) * 16_000 / 512
    mel = 2595 * torch.log10(1 + peaks / 700)
    assert torch.allclose(mel.diff()[10:], mel.diff()[10:].mean(), rtol=0.3)
    t = torch.arange(16_000) / 16_000
    image = log_mel((2 * math.pi * 1000 * t).sin(), 16_000, 40)
    assert image.shape == (1, 40, 101)
    band = 39 - int(image[0, :, 50].argmax())  # low ones at the bottom
    assert abs(float(peaks[band]) - 1000) < 60


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
def test_wavs_of_every_width_give_the_same_samples(kind, tmp_path):
    t = np.arange(4000) / 8000
    tone = np.stack([np.sin(2 * math.pi * 200 * t), np.zeros(4000)], 1)  # stereo
    scaled = {np.uint8: tone * 127 + 128, np.int16: tone * 32767, np.int32: tone * (2**31 - 1), np.float32: tone}[kind]
    wavfile.write(tmp_path / "a.wav", 8000, scaled.astype(kind))
    x = read_wav(tmp_path / "a.wav", "a.wav", 8000)
    torch.testing.assert_close(x, torch.from_numpy(tone[:, 0] / 2).float(), atol=0.01, rtol=0)
    assert len(read_wav(tmp_path / "a.wav", "a.wav", 16_000)) == 8000


def test_tones_are_told_apart_and_files_that_are_none_left_out(tmp_path, train, capsys):
    write_tones(tmp_path / "tones")
    whole = (tmp_path / "tones" / "440" / "0.wav").read_bytes()
    (tmp_path / "tones" / "440" / "broken.wav").write_bytes(b"RIFF....")
    (tmp_path / "tones" / "440" / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "tones" / "440" / "short.wav").write_bytes(whole[:20])
    run = train("data=audio_folder", f"data.path={tmp_path / 'tones'}", "data.seconds=0.4", "trainer.max_epochs=5")
    assert run.metrics["test/acc"] == 1.0
    assert (
        "3 of 23 files are no readable sounds and left out: 440/broken.wav, 440/cut.wav, 440/short.wav"
        in capsys.readouterr().err
    )
    assert run.predict(str(tmp_path / "tones" / "1760" / "0.wav"))[0]["class"] == "1760"
    assert AudioFolder(path=str(tmp_path / "tones"), seconds=0.4).spec.shape == (1, 40, 41)
