"""Opens pages in Chromium, where it is installed."""

import html
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to look at the page")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def browse(tmp_path, *arguments):
    """Runs Chromium with a profile of its own and without requests of its own; returns its output."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def measure_page(tmp_path, source, width):
    """Opens a page in a frame of a width; returns its numbers of images, of loaded and of visible ones, the
    width of its content, and its number of headings."""
    wrapper = tmp_path / "wrapper.html"
    script = """
      const frame = document.querySelector("iframe");
      frame.onload = () => {
        const page = frame.contentDocument, images = [...page.images];
        const loaded = images.filter(image => image.complete && image.naturalWidth > 0);
        const shown = images.filter(image => image.getBoundingClientRect().width > 50);
        const wide = page.documentElement.scrollWidth, sections = page.querySelectorAll("h2");
        document.title = `[${[images.length, loaded.length, shown.length, wide, sections.length]}]`;
      };
      frame.srcdoc = document.querySelector("textarea").value;
    """
    inside = f"<textarea>{html.escape(source)}</textarea><iframe width={width} height=600></iframe>"
    wrapper.write_text(f"<title></title>{inside}<script>{script}</script>")
    dom = browse(tmp_path, "--virtual-time-budget=20000", "--dump-dom", wrapper.as_uri())
    return tuple(map(int, re.search(r"<title>\[([\d,]+)\]", dom).group(1).split(",")))
