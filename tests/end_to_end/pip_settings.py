"""How pip reaches a package index from this machine, for a pip in another file system.

A company's machines often have their own index, proxy or certificate authority in pip's configuration. A
build in a chroot does not see it, and an image must not carry it.
"""

import shlex
import subprocess
import sys
from pathlib import Path

TAKEN = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
CERTIFICATES = "/etc/pip-certificates.pem"


def pip_settings_of_this_machine(folder: Path) -> dict[Path, str]:
    """Write a pip.conf into `folder`.

    Returns:
        Files of this machine, and where in the other file system each has to appear.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    # global.index-url='https://...' comes from a file, :env:.cert='...' from the environment, which wins.
    settings = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = " ".join(shlex.split(value))

    lines = ["[global]"]
    for key in TAKEN:
        # A folder of packages on this machine is not there inside.
        values = [value for value in settings.get(key, "").split() if not value.startswith("file:")]
        if values:
            lines.append(f"{key} = {' '.join(values)}")
    volumes = {folder / "pip.conf": "/etc/pip.conf"}
    if "cert" in settings:
        lines.append(f"cert = {CERTIFICATES}")
        volumes[Path(settings["cert"])] = CERTIFICATES
    (folder / "pip.conf").write_text("\n".join([*lines, ""]))
    return volumes
