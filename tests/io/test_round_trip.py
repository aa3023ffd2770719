"""What is read is what was written: every dtype, number of channels, size, layout and palette."""

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxunet.io import volumes
from flaxunet.io.images import read_image, read_mask, write_mask

DTYPES = (
    *(np.bool_, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64),
    *(np.float16, np.float32, np.float64),
)
SIDE = st.integers(1, 40)
COLOR = st.tuples(*[st.integers(0, 255)] * 3)


def random(seed, dtype, *shape):
    """Whole numbers over the whole range of a dtype; of floats, over what every one of them holds exactly."""
    rng = np.random.default_rng(seed)
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if np.dtype(dtype).kind == "f":
        return rng.integers(-2048, 2049, shape).astype(dtype)
    ends = np.iinfo(dtype)
    return rng.integers(ends.min, ends.max, shape, dtype, endpoint=True)


def scaled(array):
    """What the documentation says of intensities."""
    if array.dtype.kind in "bf":
        return array.astype(np.float32)
    return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@st.composite
def tiffs(draw):
    """Ways to store (H, W, C) that tifffile can write without imagecodecs."""
    channels = draw(st.sampled_from([1, 2, 3, 4, 7]))
    options = {
        "compression": draw(st.sampled_from([None, "zlib"])),
        "tile": draw(st.sampled_from([None, (16, 16), (32, 16)])),
        "byteorder": draw(st.sampled_from("<>")),
        "bigtiff": draw(st.booleans()),
        "photometric": "rgb" if channels == 3 and draw(st.booleans()) else "minisblack",
        "planarconfig": draw(st.sampled_from(["contig", "separate"])) if channels > 1 else None,
    }
    dtype = draw(st.sampled_from(DTYPES))
    if dtype == np.bool_ and channels > 1:
        options["planarconfig"] = "separate"  # interleaved bits are refused
    return dtype, channels, options


@settings(max_examples=150, deadline=None)
@given(tiffs(), SIDE, SIDE, st.integers(0, 99))
def test_tiff(folder, way, height, width, seed):
    dtype, channels, options = way
    array = random(seed, dtype, height, width, channels)
    stored = array[..., 0] if channels == 1 else array
    if options["planarconfig"] == "separate":
        stored = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    path = folder / "a.tif"
    tifffile.imwrite(path, stored, metadata=None, **options)
    image = read_image(path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, scaled(array))
    labels = array[..., 0]
    if channels == 1 and (labels.astype(np.int64).astype(np.int32) == labels).all():
        np.testing.assert_array_equal(read_mask(path), labels)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([np.bool_, np.uint8, np.uint16]), st.integers(1, 4), SIDE, SIDE, st.integers(0, 99))
def test_png(folder, dtype, channels, height, width, seed):
    if dtype != np.uint8:
        channels = 1  # the others Pillow cannot write
    array = random(seed, dtype, height, width, channels)
    PIL.Image.fromarray(array[..., 0] if channels == 1 else array).save(folder / "a.png")
    # Two and four channels end with alpha.
    np.testing.assert_array_equal(read_image(folder / "a.png"), scaled(array[..., : 2 * (channels > 2) + 1]))
    if channels < 3:
        np.testing.assert_array_equal(read_mask(folder / "a.png"), array[..., 0])


@settings(max_examples=80, deadline=None)
@given(st.lists(COLOR, min_size=1, max_size=256), st.booleans(), SIDE, SIDE, st.integers(0, 99))
def test_palettes_of_others(folder, colors, tiff, height, width, seed):
    """A short palette makes Pillow store 1, 2 or 4 bits."""
    ids = np.random.default_rng(seed).integers(0, len(colors), (height, width), np.uint8)
    picture = PIL.Image.fromarray(ids)
    picture.putpalette(np.array(colors, np.uint8).tobytes())
    path = folder / ("p.tif" if tiff else "p.png")
    picture.save(path)
    np.testing.assert_array_equal(read_mask(path), ids)
    np.testing.assert_array_equal(read_image(path), np.array(colors, np.uint8)[ids] / np.float32(255))


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(st.none(), st.lists(COLOR, min_size=1, max_size=300)),
    st.sampled_from([np.bool_, np.uint8, np.int16, np.uint16, np.int32, np.uint64]),
    st.sampled_from([1, 2, 255, 256, 30000]),
    SIDE,
    SIDE,
    st.integers(0, 99),
)
def test_our_masks(folder, palette, dtype, top, height, width, seed):
    top = 1 if dtype == np.bool_ else min(top, np.iinfo(dtype).max)
    labels = np.random.default_rng(seed).integers(0, top, (height, width), endpoint=True).astype(dtype)
    path = folder / "m.png"
    write_mask(path, labels, palette)
    np.testing.assert_array_equal(read_mask(path), labels)
    with PIL.Image.open(path) as picture:
        assert picture.mode == ("P" if labels.max() < 256 else "I;16")
        if picture.mode == "P":  # what others show
            shown = np.asarray(picture.convert("RGB"))
            assert (shown[labels == 0] == 0).all()
            if palette and labels.any():
                place = np.argwhere(labels)[0]
                expected = palette[(int(labels[tuple(place)]) - 1) % len(palette)]
                assert tuple(shown[tuple(place)].tolist()) == expected


@pytest.mark.parametrize("axes", ["ZYX", "TZCYX", "CZYX", "ZCYX", "ZYXS", "TYX"])
@pytest.mark.parametrize("kind", ["imagej", "ome", "plain"])
def test_pages_of_a_stack(folder, kind, axes):
    """Page k is the k-th picture in the order of the file's own axes, with all of its channels."""
    sizes = {"T": 2, "Z": 3, "C": 2, "Y": 6, "X": 9, "S": 3}
    stack = random(0, np.uint8, *(sizes[axis] for axis in axes))
    if kind == "imagej" and axes == "CZYX":
        return  # ImageJ knows one order only
    options = {"imagej": {"imagej": True}, "ome": {"ome": True}, "plain": {}}[kind]
    photometric = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(folder / "s.tif", stack, photometric=photometric, metadata={"axes": axes}, **options)
    outer = [axis for axis in axes if axis in "TZ"]
    order = [axes.index(axis) for axis in (*outer, "Y", "X", *(axis for axis in axes if axis in "CS"))]
    pictures = stack.transpose(order).reshape(
        -1, 6, 9, stack.size // (54 * np.prod([sizes[a] for a in outer]))
    )
    for page, picture in enumerate(pictures):
        np.testing.assert_array_equal(read_image(folder / "s.tif", page=page), scaled(picture))


@settings(max_examples=60, deadline=None)
@given(
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.sampled_from([np.uint8, np.int16, np.int32, np.float32]),
    st.booleans(),
    st.tuples(*[st.integers(1, 6)] * 3),
)
def test_nifti_labels_go_back_where_they_were(folder, order, signs, dtype, packed, shape):
    """Whatever the order and the direction of a file's axes."""
    import nibabel

    affine = np.eye(4)
    affine[:3, :3] = (np.diag([0.7, 1.1, 3.0]) * signs)[list(order)]
    affine[:3, 3] = -20, 30, 7.5
    labels = random(0, np.uint8, *shape).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "v.nii")
    volume = volumes.read_volume_mask(folder / "v.nii")
    assert np.argmax(np.abs(volume.affine[:3, :3]), axis=0).tolist() == [0, 1, 2]
    assert (np.diag(volume.affine)[:3] > 0).all()
    places = np.indices(shape).reshape(3, -1)  # each is the same place in the patient in both
    moved = np.linalg.inv(volume.affine) @ affine @ np.vstack([places, np.ones_like(places[:1])])
    x, y, z, _ = np.rint(moved).astype(int)
    np.testing.assert_array_equal(volume.voxels[x, y, z], labels[tuple(places)])
    path = folder / ("w.nii.gz" if packed else "w.nii")
    volumes.write_volume_mask(path, volume.voxels, volume)
    written = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    np.testing.assert_array_equal(written.affine, volume.stored_affine)  # float32 in both files


def test_the_same_labels_are_the_same_bytes(folder):
    labels = random(0, np.uint8, 30, 20)
    files = []
    for _ in range(2):
        write_mask(folder / "m.png", labels)
        files.append((folder / "m.png").read_bytes())
    assert files[0] == files[1]
