"""Words that every command understands, class paths, and how large a YAML may grow."""

import pytest
import yaml

from frugalseg import limits, yaml_text
from frugalseg.errors import ConfigError, printable
from frugalseg.yaml_text import MAX_DEPTH, MAX_NODES, check_bounds, check_strings, load_yaml, read_yaml


@pytest.fixture(autouse=True)
def _as_before():
    before = limits.now()
    yield
    limits.use(before)


def test_words_are_taken_wherever_they_stand():
    rest = limits.take(["a", "--allow", "x.y,z", "-b", "--max-pixels=12", "--allow=x.y", "c"])
    assert rest == ["a", "-b", "c"]
    assert limits.now() == limits.Limits(("x.y", "z"), 12, ("--allow", "x.y,z", "--max-pixels=12", "--allow=x.y"))
    assert limits.take(rest) == rest
    assert limits.now() == limits.Limits()


@pytest.mark.parametrize("value", ["", "0", "-1", "1e9", "½", "٣", "9" * 16, "1_000", " 1"])
def test_pixels_that_are_no_number(value):
    with pytest.raises(ConfigError, match="--max-pixels"):
        limits.take(["--max-pixels", value])


@pytest.mark.parametrize(
    ("path", "passes"),
    [
        ("frugalseg.data.VOC", True), ("torch.nn.Linear", True), ("torchvision.models.vgg", False), ("torch", True),
        ("frugalseg_evil.X", False), ("lightning_fabric.X", False), ("pytorch_lightning.X", False), ("albumentations.Blur", True),
        ("VOC", True), ("os.system", False), ("a:b", False), ("frugalseg.nn.features:X", True), ("", True), (".x", False),
    ],
)  # fmt: skip
def test_class_paths(path, passes):
    if passes:
        limits.check_class_path(path, "key")
        return
    with pytest.raises(ConfigError, match=r"^key: .*--allow"):
        limits.check_class_path(path, "key")


def test_class_paths_anywhere():
    content = {"a": [{"b": {"class_path": "frugalseg.X", "init_args": {"c": [[{"class_path": "evil.X"}]]}}}]}
    with pytest.raises(ConfigError, match=r"^file: a\[0\].b.init_args.c\[0\]\[0\].class_path: evil.X"):
        limits.check_class_paths(content, "file")
    limits.check_class_paths({"class_path": None, "x": "evil.X"}, "file")
    with pytest.raises(ConfigError, match="must be a text"):
        limits.check_class_paths({"class_path": ["evil.X"]}, "file")


def test_bounds_of_yaml():
    """At the limits, and one beyond."""
    check_bounds("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(yaml.YAMLError, match="levels"):
        check_bounds("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    fits = MAX_NODES // 1000 - 2
    start = f"a: &a [{', '.join(['x'] * 998)}]\nb: ["
    check_bounds(start + ", ".join(["*a"] * fits) + "]")
    with pytest.raises(yaml.YAMLError, match="values"):
        check_bounds(start + ", ".join(["*a"] * (fits + 3)) + "]")


def test_aliases_and_merges_are_still_there():
    assert load_yaml("a: &a {b: 1}\nc: {<<: *a, d: 2}\ne: *a") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": {"b": 1}}


def test_bombs_in_strings():
    """jsonargparse reads strings as YAML again where a setting may be anything."""
    bomb = "a: &a [x]\n" + "".join(
        f"b{n}: &{'b' * (n + 1)} [{', '.join(['*' + ('b' * n or 'a')] * 9)}]\n" for n in range(9)
    )
    with pytest.raises(yaml.YAMLError, match="stands for"):
        check_strings({"a": ["x & y * z", bomb]})
    with pytest.raises(yaml.YAMLError, match="stands for"):
        load_yaml(yaml.safe_dump({"a": [{"b": bomb}]}))


def test_a_string_is_read_once_however_many_aliases_it_has(monkeypatch):
    read = []
    monkeypatch.setattr(yaml_text, "check_bounds", read.append)
    text = "x & y * z"
    check_strings({"a": [text] * 50, "b": {"c": [text, [text]]}, "d": f"{text}!"})
    assert read == [text, f"{text}!"]


def test_files(tmp_path):
    for data, part in (
        (None, "No such file"),
        (b"\xff\xfe\xff", "not readable"),
        (b"a: [", "not readable"),
        (b"!!set {a}", "object"),
    ):
        path = tmp_path / "x.yaml"
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ConfigError, match=part) as caught:
            read_yaml(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(tmp_path / "x.yaml") == {"a": 1}


def test_signs_for_terminals_are_spelt_out():
    text = "a\x1b[31mred\x07 \u202egpj.exe \udcff\x9b2J\ttab\nline é 漢"
    assert printable(text) == "a\\x1b[31mred\\x07 \\u202egpj.exe \\udcff\\x9b2J\ttab\nline é 漢"


def of_worker(_item):
    return limits.now().max_pixels


def test_workers_keep_to_them():
    """Also those that inherit no memory: they get the limits as an argument."""
    from frugalseg.data.loader import quiet_worker
    from frugalseg.data.parallel import each

    limits.use(limits.Limits(max_pixels=123))
    assert each(of_worker, [1, 2], workers=2) == [123, 123]
    held = limits.now()
    limits.use(limits.Limits())
    quiet_worker(0, held)
    assert limits.now().max_pixels == 123
