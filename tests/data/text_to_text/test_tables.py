"""Rows of tables: what each kind reads, and what is said of tables at fault."""

import gzip
import json
import os
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from spade_jax.data.config import DataError
from spade_jax.data.text_to_text.tables import read_rows, read_tables


def write(path, content: str | bytes) -> str:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def rows(path: str, header: tuple[str, ...] = ()) -> list:
    return [row for _, row in read_rows(path, header)]


def fails(path: str, message: str, header: tuple[str, ...] = ()):
    """Reading fails with one line that begins with the file, and goes on with the message."""
    with pytest.raises(DataError) as caught:
        list(read_rows(path, header))
    said = str(caught.value)
    assert said.startswith(path)
    assert re.fullmatch(message, said.removeprefix(path)), said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.csv", "a.csv.gz"])
def test_rows_by_the_names_of_their_columns_and_where_they_stand(tmp_path, name):
    tab = "\t" if "tsv" in name else ","
    lines = ["id", "text", "label"], ["0", "zwölf", "yes"], ["1", "", " no "]
    path = write(tmp_path / name, "".join(tab.join(line) + "\n" for line in lines))
    assert list(read_rows(path)) == [
        (f"{path}, line 2", {"id": "0", "text": "zwölf", "label": "yes"}),
        (f"{path}, line 3", {"id": "1", "text": "", "label": " no "}),
    ]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_line_ends_and_blank_lines(tmp_path, name, end):
    tab = "\t" if "tsv" in name else ","
    lines = ["", f"Quality{tab}text", f"1{tab}one", "", f"0{tab}two"]
    path = write(tmp_path / name, "\ufeff" + end.join(lines))
    assert list(read_rows(path)) == [
        (f"{path}, line 3", {"Quality": "1", "text": "one"}),
        (f"{path}, line 5", {"Quality": "0", "text": "two"}),
    ]


def test_a_byte_order_mark_inside_is_a_letter(tmp_path):
    path = write(tmp_path / "a.tsv", "text\n\ufeffone\n")
    assert rows(path) == [{"text": "\ufeffone"}]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv.gz"])
def test_a_header_of_ones_own(tmp_path, name):
    tab = "\t" if "tsv" in name else ","
    path = write(tmp_path / name, f"gj04{tab}1{tab}{tab}They sailed.\n")
    header = ("source", "label", "star", "sentence")
    expected = {"source": "gj04", "label": "1", "star": "", "sentence": "They sailed."}
    assert list(read_rows(path, header)) == [(f"{path}, line 1", expected)]


def test_quotes_are_letters_in_tsv(tmp_path):
    lines = 'a\tb\n"one\ttwo"\n""\t"He said ""hi"", and left\n'
    path = write(tmp_path / "a.tsv", lines)
    assert rows(path) == [
        {"a": '"one', "b": 'two"'},
        {"a": '""', "b": '"He said ""hi"", and left'},
    ]


def test_only_a_line_feed_ends_a_line_of_tsv(tmp_path):
    path = write(tmp_path / "a.tsv", "a\tb\none\x0btwo\u2028three\rfour\t\n")
    assert rows(path) == [{"a": "one\x0btwo\u2028three\rfour", "b": ""}]


def test_quotes_hold_fields_of_csv_together(tmp_path):
    path = write(
        tmp_path / "a.csv",
        'a,"b, c"\n"one, two",three\n"He said ""hi""","first\nsecond\n\nlast"\n,"x"\n',
    )
    assert list(read_rows(path)) == [
        (f"{path}, line 2", {"a": "one, two", "b, c": "three"}),
        (f"{path}, line 6", {"a": 'He said "hi"', "b, c": "first\nsecond\n\nlast"}),
        (f"{path}, line 7", {"a": "", "b, c": "x"}),
    ]


def test_fields_of_csv_can_be_long(tmp_path):
    article = "word " * 60_000
    path = write(tmp_path / "a.csv", f'article,abstract\n"{article}",short\n')
    assert rows(path) == [{"article": article, "abstract": "short"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines(tmp_path, name):
    records = [
        {"text": "línea\nsecond", "label": 1, "score": 2.5},
        {"speaker": ["A", "B"], "utt": ["Hello.", "Hi."], "summary": None},
        {},
    ]
    lines = [json.dumps(records[0], ensure_ascii=False), "", json.dumps(records[1]), " \t", "{}"]
    path = write(tmp_path / name, "\ufeff" + "\r\n".join(lines))
    numbers = (1, 3, 5)
    assert list(read_rows(path)) == [(f"{path}, line {n}", r) for n, r in zip(numbers, records)]


def test_escapes_of_json(tmp_path):
    path = write(tmp_path / "a.jsonl", r'{"text": "caf\u00e9 \ud83d\ude00 \\ud800"}')
    assert rows(path) == [{"text": "café 😀 \\ud800"}]


def test_parquet(tmp_path):
    count = 2500  # more than are read at once
    records = [
        {
            "text": f"línea {i}\nsecond",
            "label": i % 3,
            "score": i / 2,
            "utt": ["a", "b"][: i % 3],
            "gap": None if i % 2 else "x",
        }
        for i in range(count)
    ]
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path, row_group_size=700)
    assert list(read_rows(path)) == [
        (f"{path}, row {number}", record) for number, record in enumerate(records, start=1)
    ]


def test_numbers_of_parquet_are_the_shortest_decimals_of_their_own_type(tmp_path):
    kinds = {
        "half": pyarrow.float16(),
        "single": pyarrow.float32(),
        "double": pyarrow.float64(),
        "list": pyarrow.list_(pyarrow.float32()),
        "fixed": pyarrow.list_(pyarrow.float32(), 2),
        "struct": pyarrow.struct({"a": pyarrow.float32(), "b": pyarrow.list_(pyarrow.float16())}),
        "map": pyarrow.map_(pyarrow.string(), pyarrow.float32()),
        "coded": pyarrow.dictionary(pyarrow.int32(), pyarrow.float32()),
    }
    number, tenth, third = 3.8, 0.1, 1 / 3
    columns = {
        "half": np.array([number, third], np.float16),
        "single": np.array([number, third], np.float32),
        "double": [number, third],
        "list": [[number, tenth, None], None],
        "fixed": [[number, tenth], [1e20, 0.0]],
        "struct": [{"a": number, "b": [tenth]}, {"a": None, "b": None}],
        "map": [[("a", number)], []],
        "coded": pyarrow.array([number, tenth], pyarrow.float32()).dictionary_encode(),
    }
    arrays = [pyarrow.array(columns[name], kind) for name, kind in kinds.items()]
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table(arrays, names=[*kinds]), path)
    assert rows(path) == [
        {
            "half": 3.8,
            "single": 3.8,
            "double": 3.8,
            "list": [3.8, 0.1, None],
            "fixed": [3.8, 0.1],
            "struct": {"a": 3.8, "b": [0.1]},
            "map": [("a", 3.8)],
            "coded": 3.8,
        },
        {
            "half": 0.3333,
            "single": 0.33333334,
            "double": 1 / 3,
            "list": None,
            "fixed": [1e20, 0.0],
            "struct": {"a": None, "b": None},
            "map": [],
            "coded": 0.1,
        },
    ]


@pytest.mark.parametrize(("name", "quoted"), [("a.tsv", False), ("a.csv", False), ("a.csv", True)])
@pytest.mark.parametrize("header", [(), ("text",)])
def test_a_blank_line_in_a_table_of_one_column_is_an_empty_cell(tmp_path, name, quoted, header):
    """Left out, it would shift all predictions that come after it."""
    lines = ["", *([] if header else ["text"]), "first", "", '""' if quoted else "", "fourth", ""]
    path = write(tmp_path / name, "\n".join(lines) + "\n")
    first = len(lines) - 5
    texts = {first + 1: "first", first + 2: "", first + 3: "", first + 4: "fourth"}
    if header:  # Without a header of its own, this one begins with a row.
        texts = {1: ""} | texts
    expected = [(f"{path}, line {n}", {"text": text}) for n, text in texts.items()]
    assert list(read_rows(path, header)) == expected


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_an_empty_quoted_field_alone_is_a_row_even_at_the_end(tmp_path, name):
    path = write(tmp_path / name, 'text\nfirst\n""\n')
    assert rows(path) == [{"text": "first"}, {"text": ""}]
    path = write(tmp_path / name, 'a\tb\n1\t2\n""\n' if "tsv" in name else 'a,b\n1,2\n""\n')
    fails(path, ", line 3: has 1 columns; must have 2, as the header has")


def test_rows_that_lack_columns_can_be_left_out_and_told(tmp_path):
    path = write(tmp_path / "a.tsv", "a\tb\tc\n1\t2\t3\n4\t5\n\t6\n7\t8\t9\n")
    broken = []
    assert [row["a"] for _, row in read_rows(path, broken=broken)] == ["1", "7"]
    assert broken == [f"{path}, line 3", f"{path}, line 4"]
    path = write(tmp_path / "a.tsv", "a\tb\n1\t2\t3\n")
    with pytest.raises(DataError, match="line 2: has 3 columns; must have 2"):
        list(read_rows(path, broken=[]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "a\tb\n1\t2\n3\n", ", line 3: has 1 columns; must have 2, as the header has"),
        ("a.tsv", "a\tb\n1\t2\t3\n", ", line 2: has 3 columns; must have 2, as the header has"),
        ("a.csv", 'a,b\n"1\n1",2\n1,2,3\n', ", line 4: has 3 columns; must have 2, as .* has"),
        ("a.csv", "a,b\n \n", ", line 2: has 1 columns; must have 2, as the header has"),
        ("a.tsv", "a\tb\ta\n1\t2\t3\n", ", line 1: names column 'a' twice"),
        ("a.csv", "\na,b,b\n1,2,3\n", ", line 2: names column 'b' twice"),
        ("a.csv", 'a,b\n1,2\n"1,2\n3,4\n', r", line 4: is not CSV \(unexpected end of data\)"),
        ("a.csv", 'a,b\n1,2\n"1"1,2\n', r", line 3: is not CSV \(.* expected after .*\)"),
        (
            "a.jsonl",
            '{}\n{"a": 1\n',
            r", line 2: is not JSON \(.* at column 8\); must be an object .*",
        ),
        ("a.jsonl", "{}\n\n[1, 2]\n", ", line 3: is a JSON list; must be an object"),
        (
            "a.jsonl",
            "{}\n" + '{"a":' * 100_000 + "\n",
            ", line 2: is JSON of too many levels; must be .*",
        ),
        (
            "a.jsonl",
            '{}\n{"a": ' + "9" * 5000 + "}\n",
            ", line 2: has a number of more than 4300 digits.*",
        ),
        ("a.jsonl", '{}\n"text"\n', ", line 2: is a JSON str; must be an object"),
        ("a.jsonl", '{}\n{"a": ["\\uD800"]}', r", line 2: is not Unicode text \(surrogates .*\)"),
    ],
)
def test_a_line_at_fault(tmp_path, name, content, message):
    fails(write(tmp_path / name, content), message)
    fails(write(tmp_path / f"{name}.gz", content), message)


def test_columns_are_counted_against_a_header_of_ones_own(tmp_path):
    path = write(tmp_path / "a.tsv", "gj04\t1\t\tThey sailed.\n")
    fails(path, ", line 1: has 4 columns; must have 2, as .* has", header=("label", "sentence"))


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.jsonl.gz"])
def test_a_line_that_is_not_utf8(tmp_path, name):
    first = b'{"a": 1}' if "jsonl" in name else b"text"
    path = write(tmp_path / name, first + b"\n" + first + b"\n" + b'{"a": "caf\xe9"}\n')
    fails(path, r", line 3: is not UTF-8 \(byte 0xe9 at 10\); must be UTF-8, which .*")


def test_all_tables_of_another_encoding_are_named_at_once(tmp_path):
    contents = (b"text\nfine\ncaf\xe9\n", b"text\nfine\n", b"text\n\xa3\n")
    paths = [write(tmp_path / f"{i}.tsv", content) for i, content in enumerate(contents)]
    message = rf"^{paths[0]}, line 3 \(byte 0xe9 at 3\); {paths[2]}, line 2 \(byte 0xa3 at 0\): are"
    with pytest.raises(DataError, match=message):
        list(read_tables(paths))
    assert [row["text"] for _, row in read_tables(paths[1:2] * 2)] == ["fine", "fine"]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.tsv.gz", "a.csv.gz"])
@pytest.mark.parametrize("content", ["", "\n\r\n", "\ufeff", "\ufeff\n"])
def test_an_empty_file(tmp_path, name, content):
    fails(write(tmp_path / name, content), ": has no rows; must have at least one")


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
@pytest.mark.parametrize("content", ["a", "a\n", "a\n\n\n"])
def test_a_file_that_is_its_header(tmp_path, name, content):
    fails(write(tmp_path / name, content), ": has no rows; must have at least one")


def test_a_parquet_file_without_rows(tmp_path):
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"a": pyarrow.array([], "string")}), path)
    fails(path, ": has no rows; must have at least one")


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
@pytest.mark.parametrize("lost", [4, 200, 10_000])
def test_truncated_gzip(tmp_path, kind, lost):
    numbers = np.random.default_rng(0).integers(0, 2**60, 2000)
    line = '{{"a": {}}}\n' if kind == "jsonl" else "{}\n"
    path = write(tmp_path / f"a.{kind}.gz", "".join(line.format(number) for number in numbers))
    os.truncate(path, os.path.getsize(path) - lost)
    fails(path, ": is truncated; must be a whole gzip file")


def test_a_name_that_says_gzip_of_a_file_that_is_none(tmp_path):
    path = tmp_path / "a.tsv.gz"
    path.write_text("a\n1\n")
    fails(str(path), r": is damaged or no gzip file \(.*\)")


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.tsv.zip", "atsv", "a.parquet.gz"])
def test_a_name_that_says_no_kind(tmp_path, name):
    fails(
        write(tmp_path / name, "a\n1\n"),
        r": is no table; its name must end in \.tsv, \.csv, \.jsonl, \.parquet \(all but the "
        r"last also with \.gz\)",
    )


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl.gz", "a.parquet"])
def test_files_that_cannot_be_read(tmp_path, name):
    path = tmp_path / name
    fails(str(path), ": cannot be read: No such file or directory")
    path.mkdir()
    fails(str(path), ": cannot be read: Is a directory")


@pytest.fixture
def parquet_file(tmp_path):
    texts = np.random.default_rng(0).integers(0, 2**60, 5000).astype(str)
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": texts.tolist()}), str(path))
    return path


@pytest.mark.parametrize("kept", [0, 10, 1000, -4, -50])
def test_truncated_parquet(parquet_file, kept):
    parquet_file.write_bytes(parquet_file.read_bytes()[:kept])
    fails(str(parquet_file), r": is damaged or no Parquet file \([^.]*\)")


@pytest.mark.parametrize("place", [4, 3000, -100])
def test_damaged_parquet(parquet_file, place):
    data = parquet_file.read_bytes()
    place %= len(data)
    parquet_file.write_bytes(data[:place] + b"\xff" * 60 + data[place + 60 :])
    fails(str(parquet_file), r": is damaged or no Parquet file \([^.]*\)")


def test_parquet_that_is_another_kind(tmp_path):
    fails(
        write(tmp_path / "a.parquet", "a\tb\n1\t2\n" * 9),
        r": is damaged or no Parquet file \(Parquet magic bytes not found in footer\)",
    )


def test_parquet_with_text_that_is_not_utf8(tmp_path):
    offsets, letters = pyarrow.array([b"fine", b"caf\xe9"], pyarrow.binary()).buffers()[1:]
    texts = pyarrow.StringArray.from_buffers(2, offsets, letters)
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    fails(path, r": is damaged or no Parquet file \('utf-8' codec can't decode .*\)")
