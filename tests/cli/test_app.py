"""`python -m flaxunet app` refuses what it cannot serve, and shares nothing."""

import pytest

import flaxunet
from flaxunet.__main__ import main
from flaxunet.models.spec import Spec
from flaxunet.weights import store
from tests.support.networks import fill


def test_there_is_no_flag_for_sharing(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["app", "anything", "--share"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: unrecognized arguments: --share")


def test_a_folder_without_a_segmenter_is_refused_before_anything_is_served(tmp_path, capsys):
    pytest.importorskip("gradio")
    spec = Spec("resnet18", "resnet18", in_channels=1)
    flaxunet.save(fill(store.abstract(spec)), tmp_path / "encoder", spec=spec)
    for folder, reason in (
        ("none", "no such folder"),
        (".", "holds no config.json"),
        ("encoder", "expected a whole"),
    ):
        assert main(["app", str(tmp_path / folder), "--port", "0"]) == 2
        out, line = capsys.readouterr()
        assert reason in line
        assert (out, line.count("\n")) == ("", 1)
