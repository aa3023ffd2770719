"""The architecture page shows the folders that exist and the table of imports that the tests enforce."""

import re
from pathlib import Path

from tests.support.rooms import GROUND, MAY_IMPORT

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text()


def row(room):
    others = sorted(MAY_IMPORT[room])
    return f"| `{room}` | {', '.join(f'`{other}`' for other in others) or '-'} |"


def table():
    ground = ", ".join(f"`{room}`" for room in sorted(GROUND))
    rooms = [room for room in MAY_IMPORT if room not in GROUND]
    files = [
        room for room in rooms if room.startswith("train.") and MAY_IMPORT[room] == {"flaxunet", "train"}
    ]
    head = f"Ground floor: {ground}.\n\n| package | may import |\n| --- | --- |\n"
    rest = f"| other files of `train` | {row(files[0]).split(' | ')[1].removesuffix(' |')} |"
    return head + "\n".join([*(row(room) for room in rooms if room not in files), rest])


def test_the_table_of_imports_is_the_enforced_one():
    assert table() in PAGE, table()


def test_the_tree_names_every_folder():
    tree = re.search(r"## The tree\n\n```\n(.*?)```", PAGE, re.DOTALL)[1]
    named = set(re.findall(r"^ *(\w+)/ ", tree, re.MULTILINE))
    top = {"flaxunet", "train", "porting", "tests", "benchmarks", "docs", "examples"}
    folders = {
        path.name for room in ("flaxunet", "train") for path in (ROOT / room).iterdir() if path.is_dir()
    }
    assert named == top | (folders - {"__pycache__"})
