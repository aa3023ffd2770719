"""What `pip install flaxunet` installs is complete: it works far from this repository."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("flaxunet", "porting", "train")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    pytest.importorskip("hatchling")
    pip = (sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", str(out))
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.long
def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    here = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    there = set(zipfile.ZipFile(wheel).namelist())
    assert {"flaxunet/report/page.css", "flaxunet/app/style.css"} <= here
    assert here - there == set()
    assert {name.partition("/")[0] for name in there if ".dist-info" not in name} == set(PACKAGES)


@pytest.mark.long
def test_the_default_job_begins_from_the_installed_wheel(wheel, tmp_path):
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(
        sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)
    )
    (packages,) = (tmp_path / "venv").rglob("site-packages")
    # The dependencies of this environment, but nothing that its own .pth files add, such as this repository.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = run(str(python), "-I", "-c", "import flaxunet; print(flaxunet.__file__)", cwd=elsewhere)
    assert Path(where.strip()).is_relative_to(tmp_path)
    said = run(str(python), "-I", "-m", "train", "--arch", "unet3plus", "--dry-run", cwd=elsewhere)
    assert "first batch" in said
    assert (elsewhere / "runs" / "dry-run.png").exists()
