"""Weight files in and out: exact numbers, or one line that says why not, and never somebody's code."""

import collections
import contextlib
import functools
import hashlib
import io
import json
import os
import pickle
import re
import struct
import urllib.error
import warnings
import zipfile
from datetime import timedelta

import numpy as np
import pytest

torch = pytest.importorskip("torch")
models = pytest.importorskip("torchvision").models
safetensors_torch = pytest.importorskip("safetensors.torch")
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import strategies as st  # noqa: E402

from flaxunet.models.encoders import ENCODERS  # noqa: E402
from porting.files import FileError, read, write  # noqa: E402

W = torch.tensor([[0.1, -0.0, 1e-45], [3e38, 2.0, -7.5]])
B = torch.tensor([1.0, 0.5])
STATE = {"conv.weight": W, "bn.bias": B, "bn.num_batches_tracked": torch.tensor(3)}
TINY = "ResNet18_Weights.IMAGENET1K_V1"
# Mutated files are read in milliseconds; seconds would be a hang.
FUZZ = hypothesis.settings(
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=5),
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    def fail(*_):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def saved(path, content, **options):
    if path.suffix == ".safetensors":
        safetensors_torch.save_file(content, path)
    else:
        torch.save(content, path, **options)
    return path


def repacked(source, pickled, compression=zipfile.ZIP_STORED):
    """The bytes of a .pth file with another pickle in it, or the same one compressed."""
    target = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            record = old.read(name)
            new.writestr(name, pickled(record) if name.endswith("data.pkl") else record)
    return target.getvalue()


def with_header(header, numbers=b"\0" * 8):
    """A .safetensors file with this JSON text."""
    text = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + numbers


def header_entry(shape=(2,), dtype="F32", end=8):
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": [0, end]})


def assert_refused(source, *words):
    with pytest.raises(FileError) as refusal:
        read(source)
    message = str(refusal.value)
    assert message.startswith(f"{source}: ".replace("\n", " "))
    assert "expected a .pth, .pt or .safetensors file of float32" in message
    assert message.isprintable()  # no line breaks, no terminal codes
    for word in words:
        assert word in message


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    for key, array in ours.items():
        expected = np.asarray(theirs[key])
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.safetensors", "A.PTH"])
def test_round_trip_is_bit_exact(tmp_path, name):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    arrays = {
        "kernel": kernel.transpose(3, 2, 0, 1),  # as a Flax kernel comes, not contiguous
        "tied": kernel.transpose(3, 2, 0, 1),
        "odd": W.numpy(),
        "scalar": np.float32(0.1),
        "none": np.zeros((0, 3), np.float32),
        "fixed": np.frombuffer(b"\0\0\x80\x3f", np.float32),  # may not be written to
    }
    sha256 = write(arrays, tmp_path / name)
    source = read(str(tmp_path / name))
    assert source.sha256 == sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert (source.name, source.notes, source.mean, source.std) == (name, (), None, None)
    assert_same({key: source.tensors[key] for key in arrays}, arrays)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_torch_loads_what_is_written_and_counters_stay_integers(tmp_path, name):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    write({key: value.numpy() for key, value in module.state_dict().items()}, tmp_path / name)
    load = safetensors_torch.load_file if name.endswith("s") else torch.load
    loaded = load(tmp_path / name)
    assert loaded["1.num_batches_tracked"].dtype == torch.int64
    assert module.load_state_dict(loaded, strict=True)
    if name == "a.pth":
        assert type(loaded) is collections.OrderedDict


def test_equal_arrays_give_equal_files(tmp_path):
    assert write({"w": W.numpy()}, tmp_path / "a.pth") == write({"w": W.numpy()}, tmp_path / "b.pt")


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 3}])
def test_formats_of_torch_without_counters(tmp_path, options):
    # Protocol 3 makes torch warn, which tests take for an error.
    source = read(saved(tmp_path / "a.pth", STATE, **options))
    assert_same(source.tensors, {"conv.weight": W, "bn.bias": B})
    assert source.notes == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_half_precision_is_widened(tmp_path, dtype, name):
    half = torch.linspace(-3, 3, 50).to(dtype)
    source = read(saved(tmp_path / name, {"w": half, "v": half[:7].clone(), "b": B}))
    assert_same(
        {key: source.tensors[key] for key in "wvb"}, {"w": half.float(), "v": half[:7].float(), "b": B}
    )
    assert source.notes == (f"widened 2 tensors from {str(dtype)[6:]}",)


def test_strided_tied_and_trainable_tensors(tmp_path):
    kernel = torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)
    content = {"a": W.t(), "b": W, "c": torch.nn.Parameter(W[:, 1:]), "kernel": kernel}
    source = read(saved(tmp_path / "a.pth", content))
    assert_same(source.tensors, {key: value.detach().numpy() for key, value in content.items()})
    assert all(array.flags.c_contiguous for array in source.tensors.values())


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (
            {"state_dict": STATE, "epoch": 3, "optimizer": {"w": W}},
            ["took the entry 'state_dict' of state_dict, epoch, optimizer"],
        ),
        (
            {"model": {"name": "unet"}, "weights": STATE, "loss": B},
            ["took the entry 'weights' of model, weights, loss"],
        ),
        (
            {"model": {"model_state_dict": STATE}},
            ["took the entry 'model' of model", "took the entry 'model_state_dict' of model_state_dict"],
        ),
        ({**STATE, "epoch": 3, 4: None}, ["ignored what is no tensor: epoch, 4"]),
    ],
)
def test_the_state_dict_of_a_checkpoint_is_found(tmp_path, content, notes):
    source = read(saved(tmp_path / "a.pth", content))
    assert_same(source.tensors, {"conv.weight": W, "bn.bias": B})
    assert list(source.notes) == notes


def test_prefixes_stay(tmp_path):
    source = read(saved(tmp_path / "a.pth", {"model.a": W, "model.b": B, "module.a": B}))
    assert set(source.tensors) == {"model.a", "model.b", "module.a"}


class Evil:
    """Pickled, it makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def itself():
    content = {"epoch": 1}
    content["state_dict"] = content
    return content


def quiet(build):
    """Torch warns that sparse and quantised tensors are young or old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build()


NAN, INF = torch.tensor([1.0, np.nan]), torch.tensor([-np.inf])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, ["no tensors"]),
        ({"bn.num_batches_tracked": torch.tensor(1)}, ["no tensors"]),
        (
            {"epoch": 3, "encoder": {"w": W}},
            ["no tensors", "state_dict, model_state_dict, model, net, weights"],
        ),
        ([W], ["no tensors"]),
        (W, ["no tensors"]),
        (itself(), ["no tensors"]),
        ({3: W, b"x": W}, ["keys that are not printable text: 3, b'x'"]),
        ({"a\x1b[31m\nb": W}, ["keys that are not printable text"]),
        (
            {"a": W, **dict.fromkeys("bcdefgh", NAN)},
            ["NaN or infinite numbers in b, c, d, e, f and 2 more (7 of 8"],
        ),
        ({"a": INF.half(), "b": W}, ["NaN or infinite numbers in a (1 of 2"]),
        (
            {"a": W, "b": B.double(), "c": B.double()},
            ["torch.float64 numbers in b, c (2 of 3", "float16 or bfloat16"],
        ),
        ({"a": B.int()}, ["torch.int32"]),
        ({"a": B > 0}, ["torch.bool"]),
        ({"a": B.to(torch.complex64)}, ["torch.complex64"]),
        ({"a": quiet(lambda: torch.quantize_per_tensor(B, 0.1, 0, torch.qint8))}, ["torch.qint8"]),
        ({"a": W.to_sparse()}, ["sparse"]),
        ({"a": quiet(W.to_sparse_csr)}, ["sparse"]),
        ({"a": torch.empty(3, device="meta")}, ["no numbers (device meta)"]),
        ({"a": W, "b": torch.ones(1).expand(10**6, 10**6)}, ["more numbers than are stored in b (1 of 2"]),
        (dict.fromkeys(map(str, range(99)), torch.ones(9999)), ["99 tensors of 3959604 bytes in a file of"]),
        (np.ones(2), ["code or objects"]),
    ],
)
def test_unusable_content_is_refused(tmp_path, content, words):
    assert_refused(saved(tmp_path / "a.pth", content), *words)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_code_is_refused_and_not_run(tmp_path, options):
    marker = tmp_path / "marker"
    path = saved(tmp_path / "a.pth", {"w": W, "x": Evil(marker)}, **options)
    assert_refused(path, f"holds code or objects, not only tensors ({os.name}.mkdir)")
    path.write_bytes(pickle.dumps(Evil(marker), protocol=2))
    assert_refused(path, "code or objects", "mkdir")
    assert not marker.exists()
    torch.load(saved(path, Evil(marker)), weights_only=False)
    assert marker.exists(), "the trap itself does not work"


def test_modules_are_refused(tmp_path):
    path = saved(tmp_path / "a.pt", torch.nn.Linear(2, 2))
    assert_refused(path, "holds code or objects, not only tensors (torch.nn.modules.linear.Linear)")
    with zipfile.ZipFile(path, "w") as archive:  # as torch.jit.save names its records
        archive.writestr("a/version", b"3")
        archive.writestr("a/constants.pkl", b"")
    assert_refused(path, "TorchScript")


@pytest.mark.parametrize("name", ["a.pth", "old.pth", "a.safetensors"])
@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.99])
def test_truncated_files_are_refused(tmp_path, name, part):
    options = {"_use_new_zipfile_serialization": False} if name == "old.pth" else {}
    path = saved(tmp_path / name, STATE, **options)
    os.truncate(path, int(path.stat().st_size * part))
    assert_refused(path)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"version https://git-lfs", b"PK\3\4", b"\0" * 999])
def test_other_content_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert_refused(path, "damaged, or")


def test_files_that_are_none_are_refused(tmp_path):
    assert_refused(tmp_path / "none.pth", "No such file")
    assert_refused(tmp_path / "new\nline.pth", "No such file")
    assert_refused(tmp_path, "a folder")
    for name in ("a.bin", "a.onnx", "a", "a.Foo_Weights"):
        (tmp_path / name).write_bytes(b"x")
        assert_refused(tmp_path / name, f"suffix '{(tmp_path / name).suffix}'")
    for name in ("empty.pth", "empty.safetensors"):
        (tmp_path / name).touch()
        assert_refused(tmp_path / name, "an empty file")
    os.mkfifo(tmp_path / "pipe.pth")
    assert_refused(tmp_path / "pipe.pth", "an empty file")


def test_flipped_bits_and_bombs_in_an_archive_are_refused(tmp_path):
    path = saved(tmp_path / "a.pth", {"w": torch.zeros(10**5)})
    packed = repacked(path, lambda pickled: pickled, zipfile.ZIP_DEFLATED)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    assert_refused(path, "the checksum of a/data/0 is wrong")
    path.write_bytes(packed)
    assert_refused(path, "bytes unpack to 400")
    many = b"\x80\x02}X\x01\x00\x00\x00wctorch\nTensor\n\x8a\x05" + (10**8).to_bytes(5, "little") + b"\x85Rs."
    path.write_bytes(repacked(io.BytesIO(packed), lambda pickled: many))
    assert_refused(path, "1 tensors of 400000000 bytes in a file of")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (with_header(f'{{"w": {header_entry()}, "w": {header_entry()}}}'), ["the header repeats w"]),
        (with_header(f'{{"w": {header_entry()[:-1]}, "dtype": "F16"}}}}'), ["the header repeats dtype"]),
        (with_header(f'{{"w": {header_entry(dtype="F64", shape=(1,))}}}'), ["torch.float64 numbers in w"]),
        (with_header(f'{{"w": {header_entry(dtype="F8_E4M3", shape=(8,))}}}'), ["torch.float8_e4m3fn"]),
        (with_header(f'{{"w": {header_entry(shape=(10**12,))}}}'), ["damaged"]),
        (with_header(f'{{"w": {header_entry(end=80)}}}'), ["damaged"]),
        (with_header("[" * 10**5), ["damaged"]),
        (with_header("{}", b""), ["no tensors"]),
        (struct.pack("<Q", 2**63) + b"{}", ["a header of 9223372036854775808 bytes in 10"]),
        (struct.pack("<Q", 2**24 + 1) + b" " * 2**25, ["a header of 16777217 bytes"]),
    ],
)
def test_safetensors_headers_that_lie_are_refused(tmp_path, content, words):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert_refused(path, *words)


def test_old_torch_reads_no_pickle(tmp_path, monkeypatch):
    pickled, safe = saved(tmp_path / "a.pth", STATE), saved(tmp_path / "a.safetensors", STATE)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    assert_refused(pickled, "torch 2.9.1+cpu cannot read it safely, 2.10 and newer can")
    assert set(read(safe).tensors) == {"conv.weight", "bn.bias"}


def planted(monkeypatch, folder, member, digits=None):
    """A small file where torch.hub would keep the weights, named by its hash or by other digits."""
    folder.mkdir(parents=True)
    sha256 = write({"w": W.numpy()}, folder / "a.pth")
    path = (folder / "a.pth").rename(folder / f"resnet-{digits or sha256[:8]}.pth")
    monkeypatch.setattr(member.value, "url", f"https://example.org/models/{path.name}")
    return path, sha256


def test_torchvision_names(tmp_path, monkeypatch):
    member = models.ResNet50_Weights.IMAGENET1K_V2
    _, sha256 = planted(monkeypatch, tmp_path / "hub" / "checkpoints", member)
    for name in ("ResNet50_Weights.IMAGENET1K_V2", "ResNet50_Weights.DEFAULT"):
        source = read(name)
        assert (source.name, source.sha256) == ("ResNet50_Weights.IMAGENET1K_V2", sha256)
        assert_same(source.tensors, {"w": W})
        # Torchvision's documentation of these weights.
        assert (source.mean, source.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_torchvision_file_with_another_hash_is_refused(tmp_path, monkeypatch):
    path, sha256 = planted(
        monkeypatch, tmp_path / "hub" / "checkpoints", models.ResNet18_Weights.DEFAULT, "0" * 8
    )
    assert_refused(TINY, f"{path} has another SHA-256 ({sha256}) than its name says")


def test_torchvision_offline_says_what_to_fetch_and_where(tmp_path):
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    with pytest.raises(FileError) as refusal:
        read(TINY)
    assert str(refusal.value).startswith(f"{TINY}: ")
    assert "no route to host" in str(refusal.value)
    assert str(refusal.value).endswith(f"fetch {url} and put it at {path}")


def test_torchvision_download_is_checked_and_read(tmp_path, monkeypatch):
    elsewhere, sha256 = planted(monkeypatch, tmp_path / "server", models.ResNet18_Weights.DEFAULT)

    def download(url, path, hash_prefix, progress):
        assert (url, hash_prefix) == (models.ResNet18_Weights.DEFAULT.url, sha256[:8])
        elsewhere.rename(path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert read(TINY).sha256 == sha256


@pytest.mark.parametrize(
    "name", ["ResNet34_Weights", "ResNet18_Weights.IMAGENET1K_V2", "VGG11_Weights.DEFAULT"]
)
def test_unknown_torchvision_names_list_the_known(name):
    names = [name for name, entry in ENCODERS.items() if entry.torch]
    known = [str(member) for name in names for member in models.get_model_weights(name)]
    assert len(known) == 16
    assert_refused(name, f"unknown weights; expected one of {', '.join(known)};")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_writing_replaces_a_file_or_leaves_it(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FileError, match=f"^{re.escape(str(path))}: .*No space left on device"):
            write({"w": W.numpy()}, path)
    assert path.read_bytes() == b"before"
    write({"w": W.numpy()}, path)
    assert_same(read(path).tensors, {"w": W})
    assert os.listdir(tmp_path) == [name]


def test_paths_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "file").touch()
    for name in ("none/a.pth", "folder.pth", "file/a.pth", "n" * 300 + ".pth", "a.bin", "a"):
        with pytest.raises(FileError, match=f"^{re.escape(str(tmp_path / name))}: .*expected"):
            write({"w": W.numpy()}, tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.pth"]


@functools.cache
def original(name):
    """The bytes of a small valid file with a half-precision tensor and, in a pickle, a strided one."""
    content, target = collections.OrderedDict(STATE), io.BytesIO()
    content["half"] = B.half()
    if name == "a.safetensors":
        return safetensors_torch.save(content)
    content["turned"] = W.t()
    torch.save(content, target, _use_new_zipfile_serialization=name == "new.pth")
    return target.getvalue()


# What means something to an unpickler, a JSON parser and an archive, or calls os.mkdir.
WORDS = st.sampled_from(
    [b"PK\3\4", b"PK\1\2", b"PK\5\6", b"ctorch\nTensor\n", b"ctorch\nFloatStorage\n", b"h\0", b"q\0", b'"']
    + [b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff", b"X\xff\xff\xff\xff", b"\x8a\4\0\0\0\x10", b"9" * 19]
    + [bytes([code]) for code in b"}]()RQbsteu.0N\x85\x86\x87\x81{-"]
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "replace", "delete", "insert", "truncate", "repeat", "trap"]),
        st.integers(0, 2**12),
        WORDS | st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=2,
)


def mutated(data, edits, marker):
    for kind, place, piece in edits:
        at = place % max(1, len(data))
        match kind:
            case "flip":
                data = data[:at] + bytes(byte ^ piece[0] for byte in data[at : at + 1]) + data[at + 1 :]
            case "replace":
                data = data[:at] + piece + data[at + len(piece) :]
            case "delete":
                data = data[:at] + data[at + len(piece) :]
            case "insert":
                data = data[:at] + piece + data[at:]
            case "truncate":
                data = data[:at]
            case "repeat":
                data = data[:at] + data[at // 2 : at // 2 + 9 * len(piece)] + data[at:]
            case "trap":
                data = data[:at] + pickle.dumps(Evil(marker), protocol=2)[2:-1] + data[at:]
    return data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated")


def assert_read_or_refused(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    with contextlib.suppress(FileError):
        source = read(path)
        assert source.tensors
        assert all(array.dtype == np.float32 for array in source.tensors.values())
        assert all(np.isfinite(array).all() for array in source.tensors.values())
    assert not (folder / "marker").exists()


@pytest.mark.parametrize("name", ["new.pth", "old.pth", "a.safetensors"])
def test_mutated_bytes_are_read_or_refused(folder, name):
    @FUZZ
    @hypothesis.given(EDITS)
    def check(edits):
        assert_read_or_refused(folder, name, mutated(original(name), edits, folder / "marker"))

    check()


@FUZZ
@hypothesis.given(EDITS)
def test_mutated_pickles_in_an_archive_are_read_or_refused(folder, edits):
    archive = io.BytesIO(original("new.pth"))
    content = repacked(archive, lambda pickled: mutated(pickled, edits, folder / "marker"))
    assert_read_or_refused(folder, "new.pth", content)


JSON = st.none() | st.integers() | st.sampled_from(["F32", "BF16", "I64", "", "bn.bias"]) | st.floats()
JSON = (
    JSON | st.lists(st.integers(-1, 40), max_size=3) | st.dictionaries(st.text(max_size=2), JSON, max_size=1)
)


@FUZZ
@hypothesis.given(
    st.sampled_from(["conv.weight", "bn.bias", "half", "new"]),
    st.sampled_from(["dtype", "shape", "data_offsets", "other", None]),
    JSON,
    st.integers(-9, 9),
)
def test_mutated_headers_are_read_or_refused(folder, tensor, field, value, shift):
    data = original("a.safetensors")
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    if field:
        header.setdefault(tensor, {})[field] = value
    else:
        header[tensor] = value
    text = json.dumps(header).encode()
    content = struct.pack("<Q", max(0, len(text) + shift * (shift % 3 == 0))) + text + data[8 + length :]
    assert_read_or_refused(folder, "a.safetensors", content)
