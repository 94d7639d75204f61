# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack the image of deploy/: busybox, the installer script, and the programs that it hands to nodes. The same bytes for the same input.

    tools/deploy_image.py NAME:TAG OUT.tar

then: skopeo copy oci-archive:OUT.tar docker://NAME:TAG, or ctr -n k8s.io images import OUT.tar
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.unifleet.hybrid.plugins.module_utils.container_image import ContainerImage, archive
from ansible_collections.unifleet.hybrid.plugins.module_utils.host_app_archive import pack
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_layer import Link

BUSYBOX = Path("/bin/busybox")
COMMANDS = ("base64", "cat", "mkdir", "nsenter", "rm", "sh", "sleep", "tar")
PROBE = ROOT / "guest/build/sensor-kvm-amd64"


def image(name: str) -> bytes:
    """The image as an OCI archive."""
    app = pack(ROOT, {"runu": "runu", "runu-node": "installer"}, {"probe/sensor-kvm-amd64": PROBE} if PROBE.is_file() else {})
    files: dict[str, tuple[bytes, bool] | Link] = {f"bin/{command}": Link("/bin/busybox") for command in COMMANDS}
    files["bin/busybox"] = (BUSYBOX.read_bytes(), True)
    files["install.sh"] = ((ROOT / "deploy/install.sh").read_bytes(), True)
    files["tmp/.keep"] = (b"", False)
    files["payload/programs.tar.gz"] = (app.archive(), False)
    files["payload/MANIFEST"] = (app.manifest.encode(), False)
    files["payload/VERSION"] = (app.version.encode(), False)
    return archive(ContainerImage(name, "amd64", files, env=("PATH=/bin",), labels={"org.opencontainers.image.version": app.version}))


def main() -> int:
    if len(sys.argv) != 3 or not BUSYBOX.is_file():
        print("usage: tools/deploy_image.py NAME:TAG OUT.tar   (needs Debian's busybox-static)", file=sys.stderr)
        return 2
    Path(sys.argv[2]).write_bytes(image(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
