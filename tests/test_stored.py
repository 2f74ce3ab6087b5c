"""The reader of our own JSON files."""

import pytest

from spade_jax.stored import read_json, read_json_lines

SHAPE = {
    "kind": ("train", "eval"),
    "step": int,
    "name?": (str, None),
    "of": [{"n": int}],
    str: float,
}
GOOD = '{"kind": "eval", "step": 3, "name": null, "of": [{"n": 1, "more": []}], "loss": NaN}'


class Damaged(Exception):
    pass


def read(path, data, shape=SHAPE):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_json(path, shape, advice="delete it", error=Damaged)


def test_what_fits_comes_back(tmp_path):
    value = read(tmp_path / "a.json", GOOD)
    assert (value["step"], value["name"], value["of"]) == (3, None, [{"n": 1, "more": []}])
    assert value["loss"] != value["loss"]
    assert read(tmp_path / "a.json", GOOD.replace("NaN", "4"))["loss"] == 4
    assert read_json(tmp_path / "none", SHAPE, advice="", error=Damaged) is None
    assert read_json(tmp_path / "a.json" / "b", SHAPE, advice="", error=Damaged) is None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (GOOD[:-1], "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"step": ' + "9" * 5000 + "}", "no JSON"),
        ("[]", "it is no object"),
        ("null", "it is no object"),
        ("{}", "kind is missing"),
        (GOOD.replace("eval", "test"), "kind is 'test'"),
        (GOOD.replace('"eval"', "[]"), r"kind is '\[\]'"),
        (GOOD.replace("3", "-3"), "step is '-3'"),
        (GOOD.replace("3", "3.0"), "step is '3.0'"),
        (GOOD.replace("3", "true"), "step is 'True'"),
        (GOOD.replace("3", str(2**63)), "step is '9223372036854775808'"),
        (GOOD.replace("null", "1"), "name is '1'"),
        (GOOD.replace('"n": 1', '"m": 1'), r"of\[\]\.n is missing"),
        (GOOD.replace('[{"n": 1, "more": []}]', "7"), "of is no list"),
        (GOOD.replace("NaN", '"low"'), "loss is 'low'"),
        (GOOD.replace("NaN", "1" + "0" * 400), "loss is '10000"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, data, problem):
    path = tmp_path / "a.json"
    with pytest.raises(
        Damaged, match=rf"a\.json: is damaged \({problem}.*\); delete it$"
    ) as caught:
        read(path, data)
    assert len(str(caught.value)) < len(str(path)) + 120


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(Damaged, match=r"cannot be read \(Is a directory\); delete it$"):
        read_json(tmp_path, SHAPE, advice="delete it", error=Damaged)


def test_only_the_last_line_may_be_torn(tmp_path):
    path = tmp_path / "a.jsonl"

    def lines(data):
        path.write_bytes(data)
        return read_json_lines(path, {"step": int}, advice="delete that line", error=Damaged)

    assert lines(b'{"step": 1}\n{"step": 2}\n{"st') == [{"step": 1}, {"step": 2}]
    assert lines(b'{"step": 1}\n\x00\x00\x00') == [{"step": 1}]
    assert lines(b"") == []
    for torn in (b'{"st', b"\xff", b"[]", b"", b"\x00"):
        with pytest.raises(Damaged, match=r"line 2: is damaged \(.*\); delete that line$"):
            lines(b'{"step": 1}\n' + torn + b'\n{"step": 3}\n')
