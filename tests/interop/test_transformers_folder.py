import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import check_folder
import torch_cases


@pytest.mark.parametrize("name", torch_cases.CASES)
def test_logits_loss_and_gradients_are_equal(tmp_path, name):
    case = torch_cases.case(name)
    case.write(tmp_path)
    case.save(tmp_path / "expected.npz", **case.forward())
    check_folder.check(tmp_path, tmp_path / "expected.npz")


@pytest.mark.parametrize("name", torch_cases.CASES)
def test_greedy_and_beam_outputs_are_equal_with_and_without_a_cache(tmp_path, name):
    case = torch_cases.case(name)
    case.write(tmp_path)
    greedy = case.written()
    beams = case.written(beams=3, length_penalty=0.0)
    print(greedy, beams)
    case.save(tmp_path / "expected.npz", greedy=greedy, beams=beams)
    check_folder.check(tmp_path, tmp_path / "expected.npz")
