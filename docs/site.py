"""Pages of the site that lie outside docs/: the README is its first page."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them, with links that hold where they are now."""
    top = Path(config.config_file_path).parent
    for name, page in _PAGES.items():
        text = (top / name).read_text().replace("](docs/", "](")
        for other, other_page in _PAGES.items():
            text = text.replace(f"]({other}", f"]({other_page}")
        files.append(
            File.generated(
                config, page, content=text.replace("](LICENSE)", "](https://www.apache.org/licenses/LICENSE-2.0)")
            )
        )
    return files
