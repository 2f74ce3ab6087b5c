from pathlib import Path


def test_kernels_on_eight_devices_compute_what_xla_does_on_one(on_eight_devices):
    """Packed, padded, with biases and dropout: of a mesh the masks know nothing."""
    report = on_eight_devices(Path(__file__).with_name("eight_device_kernels.py"))
    assert {name.rpartition(", ")[2] for name in report} >= {"pallas_gpu"}
    for name, (_, output, *gradients) in report.items():
        assert output < 3e-6, name
        assert max(gradients[:3]) < 1e-5, name
        assert max(gradients[3:], default=0) < 1e-4, name  # Of a bias: a sum over all queries.
