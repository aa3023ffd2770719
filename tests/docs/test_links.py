"""Links and command lines of the documentation: targets exist, and every command parses."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from flaxunet.__main__ import COMMANDS
from flaxunet.cli.parse import parse, parser_of
from porting.arguments import COMMANDS as PORTING
from train.config.arguments import parse as parse_train
from train.config.settings import Config

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"python -m ((?:train|flaxunet|porting|benchmarks)[\w.]*)(.*)")


def name_of(page):
    return str(page.relative_to(ROOT))


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_and_anchor_exists(page):
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_page_can_be_reached_from_the_index():
    reached, waiting = set(), [ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = [target.partition("#")[0] for target in LINK.findall(page.read_text())]
        waiting += [(page.parent / path).resolve() for path in targets if path and "://" not in path]
    assert {name_of(page) for page in (ROOT / "docs").rglob("*.md")} <= {name_of(page) for page in reached}


def commands(page):
    """(module, words, whether it is a whole command line) for each `python -m ...` of a page."""
    text = page.read_text()
    blocks = [body for language, body in FENCE.findall(text) if language in ("bash", "yaml", "")]
    rest = FENCE.sub("", text)
    blocks += re.findall(r"^    (python -m .*)$", rest, re.MULTILINE)
    for block in blocks:
        yield from (
            (module, line, True)
            for module, line in COMMAND.findall(re.sub(r"\s*\\?\n\s+(?=--)|\\\n", " ", block))
        )
    for span in re.findall(r"`([^`\n]+)`", rest):
        yield from ((module, line, False) for module, line in COMMAND.findall(span))


def words_of(line):
    """The words of a command up to what the shell takes; placeholders for variables are 1."""
    line = re.split(r"&&|;| \| | > | & | # |&$", line.rstrip('"') + " ")[0]
    line = re.sub(r"\"?\$\w+\"?", "1", line.replace("$arguments", "")).replace("[", "").replace("]", "")
    return [word for word in shlex.split(line, comments=True) if word != "..."]


def flags_of(parser):
    return set(parser._option_string_actions)


def check_flags(module, words):
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    if module == "train":
        known = flags_of(parser_of(Config, prog="", default=Config()))
    elif module == "flaxunet":
        known = flags_of(parser_of(COMMANDS[words[0]], prog="")) if words else {"--help"}
    elif module == "porting":
        known = flags_of(parser_of(PORTING[words[0]], prog="")) if words else {"--help"}
    else:
        source = importlib.util.find_spec(module)
        assert source is not None, module
        known = set(re.findall(r"--[\w-]+", Path(source.origin).read_text())) | {"--help"}
    assert used - known == set()


def check_whole(module, words):
    if "--help" in words or not words:
        return
    if module == "train":
        parse_train(words)
    elif module == "flaxunet":
        parse(COMMANDS[words[0]], prog=f"python -m flaxunet {words[0]}", arguments=words[1:])
    elif module == "porting":
        parse(PORTING[words[0]], prog=f"python -m porting {words[0]}", arguments=words[1:])


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_every_command_line_parses(page):
    for module, line, whole in commands(page):
        try:
            words = words_of(line)
            check_flags(module, words)
            if whole:
                check_whole(module, words)
        except (AssertionError, SystemExit, KeyError, ValueError) as error:
            pytest.fail(f"python -m {module}{line}: {error!r}")
