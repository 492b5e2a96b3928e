"""The keys of a study of search, and their checks; imported without JAX, as every config is."""

from pathlib import Path

from ml_collections import ConfigDict

from rfjax import _names
from rfjax._faults import ConfigError
from rfjax._files import write_json
from rfjax._rules import faults, integer, number, one_of, several
from rfjax._runs import differences, flatten, read, refuse
from rfjax.search.halving import Halving
from rfjax.training import config as configs

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


_POSITIVE = number(0, open_low=True)
RULES = {
    "enlargements": several(integer(1), least=1),
    "population.sigma": several(_POSITIVE, least=1),
    "population.seed": several(integer(0), least=1),
    "population.learning_rate": several(_POSITIVE, least=1),
    "population.covariance_multiplier": several(number(0), least=1),
    "population.family": several(one_of(_names.FAMILIES), least=1),
    "enumeration.sigma": several(_POSITIVE),
    "mapping": one_of(_names.MAPPINGS),
    **dict.fromkeys(("key", "chunk", "devices", "steps_per_dispatch"), integer(0)),
    **dict.fromkeys(("eval_every", "checkpoint_every"), integer(0)),
}


def validate(config: ConfigDict) -> None:
    """Checks the keys of a study; those of `training` are checked as a training's.

    Raises:
        ConfigError: naming every fault.
    """
    found = faults(RULES, flatten(config))
    model = config.training.model
    if model.head not in _names.SEARCHED_HEADS and not model.composed.patterns:
        found.append(
            f"training.model.head: got {model.head!r}, which has no covariance to search; want "
            f"{' or '.join(_names.SEARCHED_HEADS)}, or model.composed.patterns"
        )
    try:
        rungs = halving(config)
        if rungs is not None:
            rungs.check(config.training.steps)
    except (ValueError, TypeError) as error:
        found.append(str(error))
    if found:
        raise ConfigError("; ".join(found))
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
