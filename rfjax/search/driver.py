"""The host's part of a search: data in, records out, scores, halving and checkpoints between."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from rfjax._faults import Interrupted
from rfjax.search import checks, engine, optimizers
from rfjax.search.batches import Batches
from rfjax.search.halving import Halving
from rfjax.search.population import Population
from rfjax.search.problem import Problem, check
from rfjax.search.result import Records, Result

if TYPE_CHECKING:
    from rfjax.search.storage import Storage

SCANNED_STEPS = 16  # of one dispatch, where they are scanned


@dataclasses.dataclass
class _Chunk:
    """The candidates of one dispatch: their rows in the results, without repeats, and members."""

    rows: np.ndarray
    candidates: Population
    members: engine.Member


def run(
    key: jax.Array,
    problem: Problem,
    population: Population,
    batches: Callable[[int], Any] | Iterable[Any],
    *,
    steps: int,
    optimizer: Callable | None = None,
    validation: Iterable[Any] | None = None,
    eval_every: int = 0,
    shared_batches: bool = True,
    mapping: str = "auto",
    chunk: int | None = None,
    devices: Any = None,
    steps_per_dispatch: int | None = None,
    halving: Halving | None = None,
    checkpoints: str | Path | None = None,
    checkpoint_every: int = 0,
    progress: Callable[[int, Result], None] | None = None,
    stop: Callable[[int], int | None] = lambda step: None,
) -> Result:
    """Trains all candidates of a population and returns what became of them.

    Each candidate is trained as it would be alone: nothing that it computes depends on its place
    or its neighbours. One that diverges is frozen at its last finite values.

    Args:
        key: of initial parameters and of random numbers in the loss, with each candidate's seed.
        problem: the model, see `Problem`.
        population: K candidates.
        batches: a function of the step (from 0) that returns a batch, or an iterable of batches; a
            grain iterator is resumed by its own state, another one from its beginning.
        steps: updates of each candidate.
        optimizer: a function of a candidate that returns an optax transformation;
            `search.sgd(steps=steps)` by default.
        validation: a list of batches for `problem.score`, or another iterable that can be gone
            through as often as needed.
        eval_every: steps between scores; 0 for a score at the end only.
        shared_batches: whether all candidates see the same batches; else each leaf of a batch has
            K rows, one for each candidate.
        mapping: auto | loop | map | vmap, see `rfjax.search.engine`.
        chunk: the most candidates of one dispatch on one device, to save memory; None for all.
        devices: a sequence of devices over which candidates are sharded; None for the first one.
        steps_per_dispatch: steps in one dispatch; None for 1 with "loop", whose steps are
            unrolled, and 16 else.
        halving: successive halving, or None to train all to the end.
        checkpoints: a directory for checkpoints, from which the same call goes on; None for none.
            Another population, key, halving, or other steps or shapes are refused; whether problem,
            optimizer and batches are the same cannot be told, and is the caller's to see to.
        checkpoint_every: steps between them; 0 for one at the end and when stopped.
        progress: called with the step and a `Result` of what is known, at every score, checkpoint
            and rung; its arrays are copies.
        stop: called with the step; the number of a signal to stop for, or None.

    Returns:
        A `Result`.

    Raises:
        ValueError: an option, the population or the problem do not fit; batches ended.
        TypeError: an argument is not of its kind.
        CheckpointError: the checkpoints are those of another search.
        Interrupted: `stop` told to, after a checkpoint.

    Example:
        >>> import jax.numpy as jnp, rfjax
        >>> from rfjax import search
        >>> x = jax.random.normal(jax.random.key(0), (24, 24, 1))
        >>> y = rfjax.gaussian_blur(x, jnp.log(jnp.array([1.5])))
        >>> loss = lambda p, x: jnp.mean((rfjax.gaussian_blur(x, p["covariance"]) - y) ** 2)
        >>> problem = search.Problem(lambda key, c: {"covariance": c.covariance()}, loss)
        >>> starts = search.population(sigma=[1.0, 2.0], learning_rate=2.0)
        >>> result = search.run(jax.random.key(0), problem, starts, lambda t: x, steps=60)
        >>> result.final_sigmas[:, 0, 0].round(1).tolist()
        [1.5, 1.5]

    Reference: "Blurring the Line between Structure and Learning", section 3 (structure by
        gradient); Jamieson & Talwalkar, "Non-stochastic Best Arm Identification", AISTATS 2016.
    """
    key = checks.key(key)
    checks.population(population)
    checks.batches(batches)
    counts = dict(eval_every=eval_every, checkpoint_every=checkpoint_every, chunk=chunk)
    checks.settings(steps=steps, steps_per_dispatch=steps_per_dispatch, **counts)
    checks.validation(validation, problem)
    checks.devices(devices)
    checks.halving(halving, steps)
    checks.functions(stop, progress)
    optimizer = optimizers.of_problem(optimizer or optimizers.sgd(steps=steps), problem)
    checks.optimizer(optimizer, population[0])
    how = engine.layout(len(population), mapping=mapping, chunk=chunk, devices=devices)
    search = Search(
        key=key,
        problem=problem,
        population=population,
        steps=steps,
        optimizer=optimizer,
        validation=validation,
        eval_every=eval_every,
        shared=shared_batches,
        how=how,
        burst=steps_per_dispatch or (1 if how.mapping == "loop" else SCANNED_STEPS),
        halving=halving,
        every=checkpoint_every,
        progress=progress,
        stop=stop,
    )
    source = Batches(batches, steps=steps, rows=None if shared_batches else len(population))
    if checkpoints is None:
        return search.run(source, None)
    from rfjax.search.storage import Storage  # orbax, which most searches do without

    with Storage(checkpoints) as saved:
        return search.run(source, saved)


class Programs(NamedTuple):
    """The compiled functions of a search, see `rfjax.search.engine`.

    `known` are the shapes that `train` was compiled for.
    """

    start: Callable
    train: Callable
    score: Callable
    known: set


@functools.lru_cache(maxsize=64)  # halving has one for each number of candidates
def _programs(problem: Problem, optimizer: Callable, how: engine.Layout, shared: bool) -> Programs:
    """What starts, trains and scores candidates; kept, so that equal searches compile once."""
    train = engine.over_candidates(
        partial(engine.train, problem, optimizer, how.mapping == "loop"),
        how,
        (None, None, 0, 0, None if shared else 0),
        donate=(3,),
    )
    score = engine.over_candidates(partial(engine.score, problem), how, (0, None))
    return Programs(jax.jit(partial(engine.start, problem, optimizer)), train, score, set())


@dataclasses.dataclass(eq=False, kw_only=True)
class Search:
    """One search while it runs; what `run` drives from station to station.

    Attributes:
        key, problem, population, steps, validation, eval_every, halving, progress, stop: of `run`.
        optimizer: told of the problem's structure.
        shared: whether all candidates take the same batches.
        how: candidates are laid out.
        burst: steps of one dispatch.
        every: steps a checkpoint is saved; 0 for none.
    """

    key: jax.Array
    problem: Problem
    population: Population
    steps: int
    optimizer: Callable
    validation: Any
    eval_every: int
    shared: bool
    how: engine.Layout
    burst: int
    halving: Halving | None
    every: int
    progress: Callable[[int, Result], None] | None
    stop: Callable[[int], int | None]

    def __post_init__(self) -> None:
        self.timer = time.perf_counter()
        self.pending: list[tuple] = []
        self.programs = _programs(self.problem, self.optimizer, self.how, self.shared)
        self._members = self._initial_members()
        rungs = () if self.halving is None else self.halving.rungs
        scored = {self.steps, *range(self.eval_every, self.steps, self.eval_every or self.steps)}
        self.score_steps = sorted(scored.union(rungs)) if self.validation is not None else []
        saved = set(range(self.every, self.steps, self.every)) if self.every else set()
        self.saves = saved
        self.stations = sorted({*self.score_steps, *rungs, *saved, self.steps})
        entries = jax.vmap(self.problem.entries)(self._members.params)
        count = len(self.population)
        self.records = Records(count, self.steps, self.score_steps, jax.device_get(entries))

    def _initial_members(self) -> engine.Member:
        """All candidates before the first step, NumPy [K, ...]."""
        candidates = [self.population[k] for k in range(len(self.population))]
        members = [jax.device_get(self.programs.start(self.key, own)) for own in candidates]
        check(self.problem, members[0].params, self.population)
        return jax.tree.map(lambda *leaves: np.stack(leaves), *members)

    def run(self, batches: Batches, saved: "Storage | None") -> Result:
        """From the newest checkpoint, or the beginning, to the end."""
        step, active = 0, np.arange(len(self.population))
        newest = None if saved is None else saved.step
        if saved is not None and newest is not None:
            step, active = newest, self._resume(batches, saved, newest)
        chunks = self.place(active)
        self.timer = time.perf_counter()
        while step < self.steps:
            step = self.advance(batches, chunks, step)
            signum = self.stop(step)
            if step in self.stations or signum:
                self.flush()
                self._collect(chunks)
                if step in self.score_steps:
                    self._evaluate(chunks, step)
                if self.halving is not None and step in self.halving.rungs:
                    active = self._drop(self.halving, active, step)
                    chunks = self.place(active)
                last = step == self.steps
                if saved is not None and (step in self.saves or signum or last):
                    saved.save(step, self._stored(), self._meta(batches, active))
                if self.progress is not None:
                    self.progress(step, self._result(copy=True))
                if signum and not last:
                    raise Interrupted(signum, step)
                self.timer = time.perf_counter()
        return self._result()

    # -- steps -------------------------------------------------------------------------------------

    def place(self, active: np.ndarray) -> list[_Chunk]:
        """The active candidates on their devices, with no more rows than they need."""
        devices = self.how.devices[: len(active)]
        lanes = min(self.how.lanes, math.ceil(len(active) / len(devices)))
        self.how = engine.Layout(self.how.mapping, lanes, devices)
        self.programs = _programs(self.problem, self.optimizer, self.how, self.shared)
        chunks = []
        for places in self.how.chunks(len(active)):
            rows = active[places]
            take = lambda leaf, rows=rows: np.asarray(leaf)[rows]
            candidates, members = jax.tree.map(take, (self.population, self._members))
            candidates, members = self.how.deal(candidates), self.how.deal(members)
            if len(self.how.devices) == 1:
                candidates, members = jax.device_put((candidates, members), self.how.devices[0])
            chunks.append(_Chunk(rows[: len(np.unique(places))], candidates, members))
        return chunks

    def advance(self, batches: Batches, chunks: list[_Chunk], step: int) -> int:
        """Dispatches the next steps of all chunks, and reads what the last ones recorded."""
        station = next(station for station in self.stations if station > step)
        count = self.burst if self.burst <= station - step else 1
        stacked = batches.take(step, count)
        if self.shared and len(self.how.devices) == 1:
            stacked = jax.device_put(stacked, self.how.devices[0])
        first = np.int32(step)
        dispatched = []
        for chunk in chunks:
            own = stacked if self.shared else self._own(stacked, chunk)
            chunk.members, records = self._train(first, chunk, own)
            dispatched.append((chunk.rows, step, records))
        self.flush()
        self.pending = dispatched
        return step + count

    def _train(self, first: np.int32, chunk: _Chunk, batches: Any) -> tuple[engine.Member, Any]:
        """Dispatches; one that has to compile first is booked as compilation, as it then lasts."""
        leaves = jax.tree.leaves((chunk.candidates, chunk.members, batches))
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
        before = time.perf_counter()
        done = self.programs.train(self.key, first, chunk.candidates, chunk.members, batches)
        if shapes not in self.programs.known:
            self.programs.known.add(shapes)
            spent = time.perf_counter() - before
            self.records.compile_seconds += spent
            self.timer += spent
        return done

    def _own(self, stacked: Any, chunk: _Chunk) -> Any:
        """Batches [S, K, ...] as those of a chunk's candidates, [rows, S, ...]."""
        filled = np.resize(chunk.rows, self.how.rows)
        filled[len(chunk.rows) :] = chunk.rows[-1]
        own = jax.tree.map(lambda leaf: np.moveaxis(np.asarray(leaf)[:, filled], 0, 1), stacked)
        return self.how.deal(own)

    def flush(self) -> None:
        """Writes down the records of the last dispatches."""
        if not self.pending:
            return
        rows_done = []
        for rows, first, records in self.pending:
            gathered = jax.tree.map(lambda leaf: leaf[: len(rows)], self.how.gather(records))
            self.records.write_steps(rows, first, gathered)
            rows_done.append(rows)
        self.pending = []
        rows = np.concatenate(rows_done)
        now = time.perf_counter()
        self.records.arrays["seconds"][rows] += (now - self.timer) / len(rows)
        self.timer = now

    def _collect(self, chunks: list[_Chunk]) -> None:
        """Brings all members to the host."""
        for chunk in chunks:
            gathered = self.how.gather(chunk.members)

            def write(whole, part, rows=chunk.rows):
                whole[rows] = part[: len(rows)]

            jax.tree.map(write, self._members, gathered)
        self.records.arrays["diverged_at"][:] = self._members.diverged

    # -- stations ----------------------------------------------------------------------------------

    def _evaluate(self, chunks: list[_Chunk], step: int) -> None:
        """Scores of all active candidates."""
        column = self.score_steps.index(step)
        for chunk in chunks:
            totals = None
            for batch in self.validation:
                scores = self.how.gather(self.programs.score(chunk.members, batch))
                scores = jax.tree.map(_widened, scores)
                totals = scores if totals is None else jax.tree.map(np.add, totals, scores)
            for place, row in enumerate(chunk.rows):
                own = jax.tree.map(lambda leaf, place=place: leaf[place], totals)
                self.records.arrays["scores"][row, column] = self.problem.summarize(own)

    def _drop(self, halving: Halving, active: np.ndarray, step: int) -> np.ndarray:
        """The candidates that go on after a rung."""
        arrays = self.records.arrays
        if self.score_steps:
            merits = arrays["scores"][active, self.score_steps.index(step)]
        else:
            recent = arrays["losses"][active, max(0, step - max(1, step // 10)) : step]
            merits = -np.mean(recent, 1)
        merits = np.where(arrays["diverged_at"][active] >= 0, np.nan, merits)
        kept = active[halving.survivors(merits)]
        arrays["dropped_at"][np.setdiff1d(active, kept)] = step
        return kept

    # -- checkpoints -------------------------------------------------------------------------------

    def _stored(self) -> dict[str, Any]:
        return {"members": self._members, "records": self.records.arrays}

    def _meta(self, batches: Batches, active: np.ndarray) -> dict[str, Any]:
        return {
            **self._identity(),
            "active": active.tolist(),
            "batches": batches.state(),
            "compile_seconds": self.records.compile_seconds,
        }

    def _identity(self) -> dict[str, Any]:
        """What makes this search another one if it differs."""
        leaves = jax.tree_util.tree_leaves_with_path(self.population)
        return {
            "population": {jax.tree_util.keystr(p): np.asarray(v).tolist() for p, v in leaves},
            "steps": self.steps,
            "key": np.asarray(jax.random.key_data(self.key)).tolist(),
            "score_steps": list(self.score_steps),
            "shapes": [list(np.shape(leaf)) for leaf in jax.tree.leaves(self._members)],
            "halving": None if self.halving is None else dataclasses.asdict(self.halving),
        }

    def _resume(self, batches: Batches, saved: "Storage", step: int) -> np.ndarray:
        """Takes over the checkpoint of `step`; returns which candidates are trained on."""
        meta = saved.meta(step)
        saved.check(meta, self._identity())
        stored = saved.restore(step, self._stored())
        self._members, self.records.arrays = stored["members"], stored["records"]
        self._members, self.records.arrays = jax.tree.map(
            np.array, (self._members, self.records.arrays)
        )
        self.records.compile_seconds = meta["compile_seconds"]
        batches.go_to(step, meta["batches"])
        return np.asarray(meta["active"])

    def _result(self, *, copy: bool = False) -> Result:
        """What is known; as copies where the search goes on writing."""
        variables = self._members.params, self._members.state
        params, state = jax.tree.map(np.copy, variables) if copy else variables
        return self.records.finish(
            self.population, self.problem.receptive_field, copy=copy, params=params, state=state
        )


def _widened(leaf: Any) -> np.ndarray:
    """Counts as int64 and sums as float64, so that they add up exactly enough."""
    leaf = np.asarray(leaf)
    return leaf.astype(np.int64 if np.issubdtype(leaf.dtype, np.integer) else np.float64)
