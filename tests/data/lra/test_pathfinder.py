"""The command that makes Pathfinder, and its folders read."""

import numpy as np

from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.classification.examples import load_data
from spade_jax.data.lra import pathfinder
from spade_jax.data.lra.pathfinder import main
from spade_jax.data.lra.stimuli import PUBLISHED, draw_stimulus


def test_folders_are_the_same_for_any_number_of_processes_and_are_read(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(pathfinder, "_IN_FOLDER", 6)
    monkeypatch.setattr(pathfinder, "_IN_BLOCK", 4)
    for name, workers in (("one", 1), ("two", 2)):
        arguments = [f"--output={tmp_path}/{name}", "--count=14", f"--workers={workers}"]
        assert main([*arguments, "--seed=3"]) == 0
    assert f"{tmp_path}/two/curv_contour_length_14: 14 images of 32" in capsys.readouterr().out
    one, two = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")}
        for root in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    root = tmp_path / "one" / "curv_contour_length_14"
    assert sorted(path.name for path in (root / "metadata").iterdir()) == [
        "0.npy",
        "1.npy",
        "2.npy",
    ]
    lines = (root / "metadata" / "1.npy").read_text().splitlines()
    assert lines[4].split()[:3] == ["imgs/1", "sample_4.png", "4"]
    assert lines[4].split()[4:] == ["1.0", "14", "4", "2", "0.5", "1", "1"]
    config = ClassificationDataConfig(
        source="pathfinder",
        train=str(root),
        validation_share=0.3,
        encoding="intensities",
        length=1024,
    )
    data = load_data(config)
    arrays = [data.splits[name].batch(np.arange(len(data.splits[name]))) for name in data.splits]
    labels = np.concatenate([batch["labels"] for batch in arrays])
    assert labels.sum() == 7  # Half of them.
    inputs = {tuple(row) for batch in arrays for row in batch["inputs"]}
    assert len(inputs) == 14
    label = int(lines[4].split()[3])
    seeded = PUBLISHED[32].__class__(**{**vars(PUBLISHED[32]), "seed": 3})
    image, _ = draw_stimulus(10, label, seeded)
    assert tuple(image.reshape(-1).astype(int) + 1) in inputs


def test_what_is_refused(tmp_path, capsys):
    assert main([f"--output={tmp_path}/a", "--size=33"]) == 2
    assert "error: --size = 33: must be one of 32, 64, 128" in capsys.readouterr().err
    (tmp_path / "b").touch()
    assert main([f"--output={tmp_path}/b"]) == 2
    assert "b': is a file; must be a new or an empty folder" in capsys.readouterr().err
