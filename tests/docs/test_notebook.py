"""docs/notebook.ipynb from top to bottom, on the smallest run."""

import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from guides import DOCS


def test_the_notebook_runs_from_top_to_bottom(pretrained, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(pretrained)
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    notebook = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))
    names = {"__name__": "notebook"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert capsys.readouterr().out.startswith("step 2, the newest")
    assert len(shown) == 3
    kernels, looks, sizes = (figure.axes for figure in shown)
    assert len(kernels[0].lines) == 6
    # Attention of the first head: each token looks at all that is in its window, and no further.
    weights = names["weights"]
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert ((weights[0] > 0) == np.asarray(names["seen"])).all()
    assert looks[0].images[0].get_array().shape == weights[0].shape
    state_space, window = (line.get_ydata() for line in sizes[0].lines)
    radius = names["window"].radius
    assert np.isfinite(state_space).all()
    assert np.isfinite(window).sum() == 2 * radius + 1
    assert names["losses"][-1] < names["losses"][0]
    plt.close("all")
