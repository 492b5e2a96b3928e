"""What pyproject.toml cannot say: an installed package holds the config files of `configs/`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Puts `configs/` into the package, as `rfjax/configs`; a checkout is used as it is."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "rfjax", "configs")
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted(Path("configs").glob("*.py")):
                self.copy_file(path, target / path.name)


setup(cmdclass={"build_py": BuildWithConfigs})
