"""metrics.jsonl and TensorBoard's events have every row; a torn line or a full disk loses nothing else."""

import errno
import json
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from train.storage.log import Log, evaluations_without_gain, read_rows


def events(folder):
    """The events of all files of a folder, in order, without the version that each file begins with."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:  # TFRecord: length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return [event for event in found if not event.file_version]


def test_a_row_is_written_to_both_files(tmp_path):
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "picture.png")
    with Log(tmp_path, 0) as log:
        log.add({"step": 2, "train_loss": 0.5, "val_dice": float("nan"), "images_per_second": 3.0})
        log.add_picture("validation", tmp_path / "picture.png", 2)
    assert read_rows(tmp_path) == [{"step": 2, "train_loss": 0.5, "val_dice": None, "images_per_second": 3.0}]
    values = [(event.step, event.summary.value[0]) for event in events(tmp_path)]
    assert [(step, value.tag) for step, value in values] == [
        (2, "train/loss"),
        (2, "val/dice"),
        (2, "validation"),
    ]
    assert values[0][1].simple_value == 0.5
    assert (values[2][1].image.height, values[2][1].image.width) == (4, 6)


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    lines = [{"step": 2, "val_dice": 0.1}, {"step": 4, "val_dice": 0.2}, {"step": 2, "test_dice": 0.3}]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in lines) + '{"step": 6, "va'
    )
    assert read_rows(tmp_path) == lines
    with Log(tmp_path, 2) as log:
        assert log.rows == lines[:1]
    assert read_rows(tmp_path) == lines[:1]
    (started,) = events(tmp_path)
    assert (started.step, started.session_log.status) == (3, started.session_log.START)


@pytest.mark.parametrize("method", ["write_event", "flush"])
def test_events_that_the_disk_has_no_room_for_are_left_out(method, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Log(tmp_path, 0) as log:
        monkeypatch.setattr(EventsWriter, method, full)
        for step in range(1, 50):
            log.add({"step": step, "val_dice": 0.5})
        monkeypatch.undo()
    assert len(read_rows(tmp_path)) == 49


def test_one_process_of_several_writes(tmp_path):
    with Log(tmp_path, 0, writes=False) as log:
        log.add({"step": 1, "val_dice": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_evaluations_are_counted_from_the_first_of_the_best():
    rows = [{"val_dice": score} for score in (None, 0.2, 0.5, 0.5, 0.4)]
    assert [evaluations_without_gain(rows[:count]) for count in range(6)] == [0, 0, 0, 0, 1, 2]
    assert evaluations_without_gain([*rows, {"test_dice": 0.9}]) == 2


def test_patience_counts_evaluations_since_the_first_that_was_so_good():
    def waited(*scores):
        rows = [{"step": step, "val_dice": score} for step, score in enumerate(scores)]
        return evaluations_without_gain([*rows, {"step": 9, "test_dice": 1.0}])

    assert waited() == waited(0.1) == waited(0.1, 0.2) == 0
    assert waited(0.5, 0.5, 0.4) == 2
    assert waited(0.5, None, 0.6, None) == 1
    assert waited(None, None) == 1
