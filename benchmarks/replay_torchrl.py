"""Builds TorchRL's C++ extension, which its prioritized buffer needs, for the PyTorch that is installed.

    python -m benchmarks.replay_torchrl

TorchRL's wheels fit one version of PyTorch each, 0.13.3 the one before 2.13.0 and 0.14.0 the one after; they carry the
sources. Needs g++; takes about a minute and overwrites the extension in place.
"""

import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from torch.utils import cpp_extension


def main() -> int:
    """Returns 0, or 2 where TorchRL is not installed."""
    found = find_spec("torchrl")
    if found is None or found.origin is None:
        print("replay_torchrl: error: torchrl is not installed: pip install -e '.[peers]'")
        return 2
    package = Path(found.origin).parent
    extension = next(package.glob("_torchrl*.so"))
    includes = [sysconfig.get_paths()["include"], str(package / "csrc"), *cpp_extension.include_paths()]
    libraries = cpp_extension.library_paths()[0]
    command = ["g++", "-O3", "-std=c++20", "-shared", "-fPIC", "-DTORCH_EXTENSION_NAME=_torchrl"]
    command += [str(package / "csrc" / name) for name in ("pybind.cpp", "utils.cpp")]
    command += [f"-I{path}" for path in includes]
    command += [f"-L{libraries}", "-ltorch", "-ltorch_cpu", "-ltorch_python", "-lc10", f"-Wl,-rpath,{libraries}"]
    subprocess.run([*command, "-o", str(extension)], check=True)
    print(f"built {extension}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
