"""The generated pages of the reference say what the code says."""

import importlib.util
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def generated():
    spec = importlib.util.spec_from_file_location("generate", REFERENCE / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


@pytest.mark.parametrize("page", ["cli.md", "api.md"])
def test_a_generated_page_is_up_to_date(generated, page):
    stored = (REFERENCE / page).read_text()
    assert stored == generated[page], "run python docs/reference/generate.py"
