"""The same ten images with two or three objects each, written in every layout that is known."""

import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

SIZE = (20, 24)
COUNT = 10
PATIENTS = 5


def truth(number):
    """An image (H, W) uint8 and its objects (H, W) uint8, rectangles of which the first two touch."""
    rng = np.random.default_rng(number)
    objects = np.zeros(SIZE, np.uint8)
    for place, (top, left, height, width) in enumerate(boxes(number), 1):
        objects[top : top + height, left : left + width] = place
    noise = rng.normal(0, 10, SIZE)
    return np.clip(60 + 120 * (objects > 0) + noise, 0, 255).astype(np.uint8), objects


def boxes(number):
    """Top, left, height and width of each object."""
    width = 4 + number % 3
    return [(3, 2, 8, width), (3, 2 + width, 8, 6), *([(14, 5, 4, 9)] if number % 2 else [])]


def corners(box):
    top, left, height, width = box
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def folders(root):
    for number in range(COUNT):
        image, objects = truth(number)
        save(root / "images" / f"n{number}.png", image)
        save(root / "masks" / f"n{number}.png", (objects > 0).astype(np.uint8))


def suffixes(root):
    for number in range(COUNT):
        image, objects = truth(number)
        save(root / f"n{number}.png", image)
        save(root / f"n{number}_mask.png", (objects > 0).astype(np.uint8))


def splits(root):
    for number in range(COUNT):
        image, objects = truth(number)
        folder = root / ("train", "val", "test")[max(0, number - COUNT + 3)]
        save(folder / "images" / f"n{number}.png", image)
        save(folder / "labels" / f"n{number}_label.png", (objects > 0).astype(np.uint8))


def dsb2018(root):
    for number in range(COUNT):
        image, objects = truth(number)
        save(root / f"n{number}" / "images" / f"n{number}.png", image)
        for place in range(1, objects.max() + 1):
            save(root / f"n{number}" / "masks" / f"{place}.png", 255 * (objects == place).astype(np.uint8))


def instances(root):
    for number in range(COUNT):
        image, objects = truth(number)
        save(root / "images" / f"n{number}.png", image)
        save(root / "labels" / f"n{number}.png", objects)


def csv(root, group="group"):
    lines = [f"mask, image, {group}"]
    for number in range(COUNT):
        image, objects = truth(number)
        patient = f"p{number % PATIENTS}"
        save(root / patient / f"scan{number}.png", image)
        save(root / patient / "truth" / f"t{number}.png", (objects > 0).astype(np.uint8))
        lines.append(f"{patient}/truth/t{number}.png,{patient}/scan{number}.png,{patient}")
    (root / "samples.csv").write_text("\n".join(lines))


def nifti(root, affine=None):
    """Volumes whose axial slices, as they are read, are the images."""
    affine = np.diag([-1.0, -1.0, 2.0, 1.0]) if affine is None else affine
    for volume in range(PATIENTS):
        pairs = [truth(number) for number in range(2 * volume, 2 * volume + 2)]
        image, objects = (np.stack([pair[i].T for pair in pairs], axis=-1) for i in (0, 1))
        for folder, array in (
            ("imagesTr", image.astype(np.int16) - 100),
            ("labelsTr", (objects > 0).astype(np.uint8)),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, affine), root / folder / f"v{volume}.nii.gz")
    (root / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "square"}}))


def run_lengths(mask):
    """COCO's uncompressed run lengths."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return runs if flat[0] == 0 else [0, *runs]


def coco(root, name="annotations.json"):
    images, annotations = [], []
    for number in range(COUNT):
        image, objects = truth(number)
        save(root / "images" / f"n{number}.png", image)
        images.append({"id": number, "file_name": f"n{number}.png", "height": SIZE[0], "width": SIZE[1]})
        for place, box in enumerate(boxes(number), 1):
            polygon = [[value for corner in corners(box) for value in corner]]
            runs = {"counts": run_lengths((objects == place).astype(int)), "size": list(SIZE)}
            shape = polygon if place % 2 else runs
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": 7, "segmentation": shape}
            )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "square"}]}
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content))


def yolo(root):
    for number in range(COUNT):
        save(root / "images" / f"n{number}.png", truth(number)[0])
        lines = [
            " ".join(["0", *(f"{x / SIZE[1]:.6f} {y / SIZE[0]:.6f}" for x, y in corners(box))])
            for box in boxes(number)
        ]
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"n{number}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("names:\n  0: square\n")


WRITERS = {
    "folders": folders,
    "splits": splits,
    "dsb2018": dsb2018,
    "instances": instances,
    "csv": csv,
    "nifti": nifti,
    "coco": coco,
    "yolo": yolo,
}


def written(layout: str, root: Path) -> Path:
    """The folder, filled."""
    root.mkdir(parents=True, exist_ok=True)
    WRITERS[layout](root)
    return root
