"""`maebench` as it is called where a package of somebody else's is installed beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path


def beside(source: Path, folder: Path):
    """`maebench ARGUMENTS` beside a package, whose wheel is built and unpacked as pip would.

    Its attribute `results` is the folder of its results.
    """
    copy = shutil.copytree(source, folder / "source")  # building leaves nothing in the repository
    code = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    paths = os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH")]))
    plugin = source.name.removeprefix("maebench-")
    environment = {**os.environ, "PYTHONPATH": paths, "MAEBENCH_PLUGINS": plugin}
    environment |= {"MAEBENCH_RESULTS": str(folder / "results"), "COLUMNS": "200"}

    def call(*arguments, fails=False):
        command = [sys.executable, "-W", "error", "-m", "maebench", *arguments]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if fails:
            assert ran.returncode == 1, ran.stdout
            return ran.stderr
        assert ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    call.results = folder / "results"
    return call
