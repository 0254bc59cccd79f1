"""Makes a virtual environment with pip in it: `python ci/make_venv.py FOLDER`, run by the Python it is for.

Debian and its children ship Python without `ensurepip`; then the environment is made without pip, and the pip that
belongs to Python puts one in. Where neither exists the message says which package is missing.
What it leaves to others: what goes into the environment is the Makefile's business.
"""

import importlib.util
import shutil
import subprocess
import sys

OLDEST = (3, 11)


def main(folder: str) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info < OLDEST:
        sys.exit(f"ioxide needs Python 3.11 or later; {sys.executable} is {version}: make PYTHON=/path/to/python3.x")
    if importlib.util.find_spec("venv") is None:
        sys.exit(f"{sys.executable} has no venv module. On Debian and Ubuntu: apt-get install python{version}-venv")
    import venv

    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    if not has_ensurepip and importlib.util.find_spec("pip") is None:
        sys.exit(
            f"{sys.executable} has neither ensurepip nor pip. On Debian and Ubuntu: "
            f"apt-get install python{version}-venv, or python3-pip"
        )
    shutil.rmtree(folder, ignore_errors=True)
    venv.EnvBuilder(with_pip=has_ensurepip, symlinks=True).create(folder)
    if not has_ensurepip:
        install = [sys.executable, "-m", "pip", "--python", f"{folder}/bin/python", "install", "--quiet", "pip"]
        subprocess.run(install, check=True)


if __name__ == "__main__":
    main(sys.argv[1])
