"""Networks on disk and encoders on loan: all of it comes back, or one line says what does not fit."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import flaxunet
from flaxunet.models.spec import Spec
from flaxunet.weights import store, transfer
from flaxunet.weights.store import StoreError
from tests.support.networks import network

predict = nnx.jit(lambda model, image: model(image))


def picture(channels=3):
    return np.random.default_rng(0).normal(size=(1, 33, 47, channels)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A stored ResNet-18 for RGB, with its own normalisation."""
    folder = tmp_path_factory.mktemp("stored") / "resnet18"
    mean, std = (0.1, 0.2, 0.6), (0.5, 0.25, 0.25)
    store.save(network("unet").encoder, folder, spec=Spec("resnet18", "resnet18", mean=mean, std=std))
    return folder


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("unet", {"in_channels": 4, "classes": 5, "upsample": "bilinear"}),
        pytest.param("unetplusplus", {"deep_supervision": True, "norm": "group"}, marks=pytest.mark.long),
        pytest.param(
            "unet3plus",
            {"guidance": True, "classes": 3, "dropout": 0.1, "encoder": "plain"},
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_stored_network_gives_the_same_numbers(arch, options, tmp_path):
    model = network(arch, **options)
    store.save(model, tmp_path / "model", source={"name": "a test"})
    loaded = flaxunet.load(tmp_path / "model")
    assert loaded.spec == model.spec
    for path, leaf in store.leaves(model).items():
        np.testing.assert_array_equal(leaf[...], store.leaves(loaded)[path][...])
    image = picture(options.get("in_channels", 3))
    np.testing.assert_array_equal(predict(loaded, image), predict(model, image))
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    assert content["source"] == {"name": "a test"}
    assert content["model"]["mean"] == list(model.mean)
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


@pytest.mark.long
def test_a_loaded_network_trains_on(tmp_path):
    store.save(network("unet3plus", guidance=True, dropout=0.5), tmp_path / "model")
    loaded = flaxunet.load(tmp_path / "model")
    loaded.train()
    first, second = (nnx.jit(lambda model, x: model(x))(loaded, picture()) for _ in range(2))
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)  # dropout draws anew
    keys = [jax.random.key_data(key) for key in jax.tree.leaves(nnx.state(loaded, nnx.RngKey))]
    assert len(keys) > 1
    assert len({tuple(key.tolist()) for key in keys}) == len(keys)


def test_a_pruned_network_comes_back_pruned(tmp_path):
    pruned = network("unetplusplus", deep_supervision=True).prune(2)
    store.save(pruned, tmp_path / "model")
    np.testing.assert_array_equal(
        predict(flaxunet.load(tmp_path / "model"), picture()), predict(pruned, picture())
    )


def test_what_has_no_spec_is_not_stored(tmp_path):
    with pytest.raises(ValueError, match=r"expected what flaxunet\.create makes"):
        store.save(network("unet").encoder, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over_or_left_behind(encoder, tmp_path):
    with pytest.raises(StoreError, match="exists; expected a new folder"):
        store.save(network("unet"), encoder)
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(StoreError):
            store.save(network("unet"), folder, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_stored_network_can_be_replaced(tmp_path):
    for arch in ("unetplusplus", "unet"):
        store.save(network(arch), tmp_path / "model", replace=True)
    assert store.read(tmp_path / "model").spec.arch == "unet"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_replacing_never_loses_the_old_network(tmp_path, monkeypatch):
    store.save(network("unet"), tmp_path / "model")
    rename, done = Path.rename, []

    def fails_once(path, target):
        done.append(target)
        if len(done) == 2:
            raise OSError("no more")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(StoreError, match="cannot be written: no more"):
        store.save(network("unetplusplus"), tmp_path / "model", replace=True)
    assert store.read(tmp_path / "model").spec.arch == "unet"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def damaged(folder, encoder, change):
    folder.mkdir()
    files = {name: (encoder / name).read_bytes() for name in (store.CONFIG, store.WEIGHTS)}
    content = json.loads(files[store.CONFIG])
    files.update(change(files, content))
    for name, data in files.items():
        (folder / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return folder


def flipped(files, content):
    data = bytearray(files[store.WEIGHTS])
    data[len(data) // 2] ^= 1
    return {store.WEIGHTS: bytes(data)}


def rewritten(change):
    """Other arrays under a digest that fits them."""

    def write(files, content):
        tensors = safetensors.numpy.load(files[store.WEIGHTS])
        change(tensors)
        data = safetensors.numpy.save(tensors)
        content["weights"]["sha256"] = store.hashlib.sha256(data).hexdigest()
        return {store.WEIGHTS: data, store.CONFIG: content}

    return write


def other_arrays(tensors):
    tensors["stem.conv.bias"] = tensors.pop("stem.norm.bias")
    tensors["stem.norm.mean"] = tensors["stem.norm.mean"].astype(np.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flipped, "model.safetensors is damaged"),
        (lambda files, content: {store.CONFIG: b"{"}, "does not describe a network"),
        (lambda files, content: {store.CONFIG: b"[]"}, "does not describe a network"),
        (lambda files, content: {store.CONFIG: {**content, "format": 9}}, "is of format 9; expected 1"),
        (
            lambda files, content: {store.CONFIG: {**content, "model": {"arch": "unet", "encoder": "vgg"}}},
            "unknown encoder 'vgg'",
        ),
        (
            lambda files, content: {
                store.CONFIG: {**content, "model": {**content["model"], "mean": [float("nan")] * 3}}
            },
            "mean is .*; expected 3 numbers",
        ),
        (lambda files, content: {store.CONFIG: b"[" * 100_000}, "does not describe a network"),
        (
            rewritten(other_arrays),
            r"missing stem\.norm\.bias; stem\.norm\.mean is float64\[64\], not .*; unused stem\.conv\.bias",
        ),
    ],
)
def test_a_damaged_folder_is_one_line(change, message, encoder, tmp_path):
    folder = damaged(tmp_path / "damaged", encoder, change)
    with pytest.raises(StoreError, match=message) as error:
        flaxunet.load(folder)
    assert "\n" not in str(error.value)
    with pytest.raises(StoreError, match=r"holds no config\.json"):
        flaxunet.load(tmp_path)


@pytest.mark.long
def test_an_encoder_serves_another_decoder(encoder):
    model = flaxunet.create(
        "unetplusplus", encoder="resnet18", encoder_weights=encoder, rngs=nnx.Rngs(0), std=(1.0, 1.0, 1.0)
    )
    assert (model.mean, model.std) == ((0.1, 0.2, 0.6), (1.0, 1.0, 1.0))
    stored = store.read(encoder).tensors
    for path, leaf in store.leaves(model.encoder).items():
        np.testing.assert_array_equal(leaf[...], stored[path])


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_the_first_convolution_is_adapted_to_the_channels(channels, encoder):
    taken = transfer.encoder_of(store.read(encoder), Spec("unet", "resnet18", in_channels=channels))
    kernel = taken.tensors["encoder.stem.conv.kernel"]
    rgb = store.read(encoder).tensors["stem.conv.kernel"]
    assert kernel.shape == (7, 7, channels, 64)
    assert taken.adapted == f"{channels} from 3 channels"
    if channels == 1:
        np.testing.assert_allclose(kernel[:, :, 0], rgb[:, :, 0] + rgb[:, :, 1] + rgb[:, :, 2], rtol=1e-6)
    else:
        for index in range(channels):
            np.testing.assert_allclose(kernel[:, :, index], rgb[:, :, index % 3] * 3 / channels, rtol=1e-6)
    assert store.read(encoder).normalisation(channels)[0] == (0.3,) * channels


def test_only_weights_for_rgb_are_adapted():
    with pytest.raises(StoreError, match="takes 2 channels; expected weights for 5 or 3"):
        transfer.adapt(np.zeros((7, 7, 2, 64), np.float32), 5)


def test_a_whole_network_is_taken_over_but_for_other_classes(tmp_path):
    store.save(network("unet", classes=1, guidance=True), tmp_path / "model")
    stored = store.read(tmp_path / "model")
    taken = transfer.all_of(stored, Spec("unet", "resnet18", classes=4))
    assert sorted(taken.unused) == [
        "guidance.conv.bias",
        "guidance.conv.kernel",
        "heads.0.bias",
        "heads.0.kernel",
    ]
    assert sorted(taken.fresh) == ["heads.0.bias", "heads.0.kernel"]
    same = transfer.all_of(stored, stored.spec)
    assert (same.unused, same.fresh, same.adapted) == ((), (), None)
    assert same.tensors.keys() == stored.tensors.keys()
    only = transfer.encoder_of(stored, Spec("unet3plus", "resnet18"))
    assert all(path.startswith("encoder.") for path in only.tensors)
    assert all(path.startswith(("decoder.", "heads.", "guidance.")) for path in only.unused)


@pytest.mark.parametrize(
    ("choose", "spec", "message"),
    [
        (
            transfer.encoder_of,
            Spec("unet", "resnet34"),
            "is resnet18 with batch norm; this network's is resnet34",
        ),
        (
            transfer.encoder_of,
            Spec("unet", "resnet18", norm="group"),
            "this network's is resnet18 with group norm",
        ),
        (
            transfer.all_of,
            Spec("unet", "resnet18"),
            "holds resnet18, 3 channels; this network is unet on",
        ),
    ],
)
def test_another_network_is_refused(choose, spec, message, encoder):
    with pytest.raises(StoreError, match=message):
        choose(store.read(encoder), spec)


def test_another_decoder_is_refused(tmp_path):
    store.save(network("unetplusplus", deep_supervision=True).prune(2), tmp_path / "pruned")
    store.save(network("unet", upsample="bilinear"), tmp_path / "bilinear")
    for name, arch, message in (
        ("pruned", "unetplusplus", "pruned to level 2; this network is unetplusplus on resnet18"),
        ("bilinear", "unet", "bilinear upsampling; this network is unet on resnet18"),
    ):
        with pytest.raises(StoreError, match=message):
            transfer.all_of(store.read(tmp_path / name), Spec(arch, "resnet18"))


def test_an_encoder_comes_back_as_an_encoder(encoder):
    loaded = flaxunet.load(encoder)
    assert [leaf.shape[-1] for leaf in predict(loaded, picture())] == list(loaded.channels)
    with pytest.raises(ValueError, match="'resnet18' is an encoder"):
        flaxunet.create("resnet18", encoder="resnet18", rngs=nnx.Rngs(0))
