"""The commands that an installation brings; `pyproject.toml` names them, each as one of these."""

import importlib
from functools import partial

from rfjax import _extras
from rfjax._console import called, tell


def run(module: str) -> int:
    """Runs the program of a module, which is its `main`; returns the exit status.

    Where it needs an extra that is not installed, one line says which.
    """
    try:
        program = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        fault = _extras.missing(module.removesuffix(".__main__"), error.name or module)
        tell(f"{called(module)}: error: {fault or error}")
        return 1
    return program()


train = partial(run, "rfjax.train")
predict = partial(run, "rfjax.predict")
evaluate = partial(run, "rfjax.evaluate")
export = partial(run, "rfjax.export")
guide = partial(run, "rfjax.guide")
video = partial(run, "rfjax.video")
data = partial(run, "rfjax.data.__main__")
search = partial(run, "rfjax.studies.search.__main__")
studies = partial(run, "rfjax.studies.__main__")
receptive_field = partial(run, "rfjax.receptive_field.__main__")
convert = partial(run, "rfjax.models.convert")
native = partial(run, "rfjax.native")
