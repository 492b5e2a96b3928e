"""The keys of a study of search, and their checks; imported without JAX, as every config is."""

from pathlib import Path

from ml_collections import ConfigDict

from rfjax import _names
from rfjax._faults import ConfigError
from rfjax._files import write_json
from rfjax._options import choose
from rfjax._runs import differences, flatten, read, refuse
from rfjax.search.halving import Halving
from rfjax.training import config as configs
from rfjax.training.config import is_number, is_whole

KINDS = ("search", "enumeration")
FILE = "config.json"  # in the study's directory
FREE_ON_RESUME = ("mapping", "chunk", "devices", "checkpoint_every", "training.data.dir")


def base() -> ConfigDict:
    """The config of a study with every key at its default, locked.

    Example:
        >>> config = base()
        >>> config.population.sigma, config.training.model.head
        ((0.5,), 'composition')
    """
    config = ConfigDict()
    config.key = 0
    config.enlargements = (1,)  # whole factors by which the data are enlarged
    config.training = configs.base()  # of a network with one composed layer or several
    config.training.model.head = "composition"

    config.population = ConfigDict()  # every combination is a candidate
    config.population.sigma = (0.5,)  # initial, in pixels of the layers' maps
    config.population.seed = (0,)
    config.population.learning_rate = (0.1,)
    config.population.covariance_multiplier = (1.0,)
    config.population.family = ("own",)  # own | spherical | diagonal | full

    config.enumeration = ConfigDict()
    config.enumeration.sigma = ()  # fixed, with every seed and learning rate of the population

    config.mapping = "auto"  # auto | loop | map | vmap
    config.chunk = 0  # the most candidates of one dispatch on one device; 0 for all
    config.devices = 0  # over which candidates are sharded; 0 for all of this process
    config.steps_per_dispatch = 0  # 0 for the default of the mapping
    config.eval_every = 0  # 0 for an evaluation at the end only
    config.checkpoint_every = 100
    config.halving = ConfigDict()
    config.halving.rungs = ()  # steps after which only a part of the candidates goes on
    config.halving.keep = 0.5
    return config.lock()


# What every value of a list must be, and how that is said.
_POSITIVE = (lambda v: is_number(v) and v > 0, "positive numbers")
_NOT_NEGATIVE = (lambda v: is_number(v) and v >= 0, "finite numbers, 0 or more")
_LISTS = {
    "enlargements": (lambda v: is_whole(v) and v >= 1, "whole numbers, 1 or more"),
    "population.sigma": _POSITIVE,
    "population.seed": (lambda v: is_whole(v) and 0 <= v < 2**31, "whole numbers from 0 to 2^31-1"),
    "population.learning_rate": _POSITIVE,
    "population.covariance_multiplier": _NOT_NEGATIVE,
    "population.family": (lambda v: isinstance(v, str), "names"),
    "enumeration.sigma": _POSITIVE,
}


def validate(config: ConfigDict) -> None:
    """Checks the keys of a study; those of `training` are checked as a training's.

    Raises:
        ConfigError: naming every fault.
    """
    faults = []
    for key, (holds, wanted) in _LISTS.items():
        section, _, name = key.rpartition(".")
        values = (config[section] if section else config)[name]
        several = isinstance(values, tuple | list) and (len(values) or key == "enumeration.sigma")
        if not several:
            faults.append(f"{key}: got {values!r}; want a tuple of values, such as (1,)")
        elif not all(map(holds, values)):
            faults.append(f"{key}: got {values!r}; want {wanted}")
    for key in ("key", "chunk", "devices", "steps_per_dispatch", "eval_every", "checkpoint_every"):
        if not is_whole(config[key]) or not 0 <= config[key] < 2**31:
            faults.append(f"{key}: got {config[key]!r}; want a whole number from 0 to 2^31-1")
    model = config.training.model
    if model.head not in _names.SEARCHED_HEADS and not model.composed.patterns:
        faults.append(
            f"training.model.head: got {model.head!r}, which has no covariance to search; want "
            f"{' or '.join(_names.SEARCHED_HEADS)}, or model.composed.patterns"
        )
    try:
        choose("mapping", config.mapping, _names.MAPPINGS)
        for family in config.population.family:
            choose("population.family", family, _names.FAMILIES)
        rungs = halving(config)
        if rungs is not None:
            rungs.check(config.training.steps)
    except (ValueError, TypeError) as error:
        faults.append(str(error))
    if faults:
        raise ConfigError("; ".join(faults))
    configs.validate(config.training)


def halving(config: ConfigDict) -> Halving | None:
    """The successive halving of a study, or None."""
    rungs = tuple(config.halving.rungs)
    return Halving(rungs, keep=config.halving.keep) if rungs else None


def check_same(config: ConfigDict, workdir: Path) -> None:
    """Refuses to go on with a study under another config.

    Raises:
        ConfigError: naming every key that differs, old -> new; or that of the study in `workdir`
        cannot be read.
    """
    file = workdir / FILE
    if file.exists():
        hint = "delete it to go on with the config that is given, if it is that of the study"
        before = read(file, ConfigError, hint)
        whole = flatten(base()) | flatten(before)  # it may be of a version with fewer keys
        found = differences(whole, config, free=FREE_ON_RESUME)
        refuse(f"the study in {workdir}", found, ConfigError)


def write(config: ConfigDict, workdir: Path) -> None:
    """Writes the config of a study beside its results."""
    write_json(workdir / FILE, config.to_dict())
