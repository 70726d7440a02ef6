"""Takes the picture of the web page that the documentation shows: `make pictures`, which needs Debian's chromium."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from tests.end_to_end.browser import EXAMPLE, chromium
from tests.server_process import REPOSITORY, serving

OUT = REPOSITORY / "docs/page.png"


def photograph(url: str) -> Image.Image:
    """The page with the example picture's segments, in few colours, which makes a small file."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1120, "height": 900}, color_scheme="light")
        page.goto(url)
        expect(page.locator("#model")).to_contain_text("classes")
        page.get_by_label("Segment").check(force=True)  # the radio button itself is transparent
        page.set_input_files("#file", EXAMPLE)
        expect(page.locator("#heading")).to_contain_text("segments")
        expect(page.locator("#opacity")).to_be_visible()
        shot = page.screenshot(full_page=True, animations="disabled")
    with Image.open(io.BytesIO(shot)) as picture:
        return picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)


def main() -> None:
    """Serve the demo model for as long as it takes."""
    with tempfile.TemporaryDirectory() as folder, serving(None, Path(folder)) as server:
        photograph(server.url).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
