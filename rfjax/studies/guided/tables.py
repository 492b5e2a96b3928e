"""What the tables show, and what is claimed of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from rfjax.studies.guided import networks
from rfjax.studies.guided.networks import (
    EARLY,
    EARLY_INTERACTIVE,
    FOREGROUND,
    GUIDED,
    INTERACTIVE,
    LOCAL,
    ORACLE,
    SEPARATE,
)

POINTS, SHOTS, WAYS = (1, 2, 5, 10, 25, 100, 0), (1, 2, 5, 10), (2, 3, 4, 5)
MANY = (1, 5, 25, 100)
INTERACTIVES = (INTERACTIVE, LOCAL, EARLY_INTERACTIVE)
TUNED = "fine-tuned on the support"


@dataclass(frozen=True)
class Question:
    """Episodes of held-out digits.

    Attributes:
      ways, shots, points, kind: see `rfjax.data.episodes.Rules`; 0 points are all.
      tuned: whether the network is fine-tuned on the support instead of being guided by it.
    """

    ways: int = 2
    shots: int = 1
    points: int = 0
    kind: str = "semantic"
    tuned: bool = False

    @property
    def name(self) -> str:
        """The name of the file of its answer."""
        parts = [self.kind, f"{self.ways}ways", f"{self.shots}shots", f"{self.points}points"]
        return "-".join(parts + ["tuned"] * self.tuned)


@dataclass(frozen=True)
class Asked:
    """A network and a question to it.

    Attributes:
      network: one of `networks.SPECS`.
      question: that it is asked.
    """

    network: str
    question: Question


Place = tuple[str, str]


@dataclass(frozen=True)
class Claim:
    """For every seed, `lower` times a factor is below `higher`, both places of the table.

    Attributes:
      text: the claim in words.
      lower, higher: places.
      factor: of the lower one.
    """

    text: str
    lower: Place
    higher: Place
    factor: float = 1.0


@dataclass(frozen=True)
class Table:
    """A table: questions by row and column.

    Attributes:
      title: what it compares.
      cells: by (row, column), in their order.
      claims: of it.
      curve: what the columns are along, where the rows are drawn as curves; "" for bars.
    """

    title: str
    cells: Mapping[Place, Asked]
    claims: tuple[Claim, ...] = ()
    curve: str = ""


def _points(points: int) -> str:
    return "dense" if points == 0 else f"{points} point" + "s" * (points > 1)


def _shots(shots: int) -> str:
    return f"{shots} shot" + "s" * (shots > 1)


def _forms() -> Table:
    columns = {_points(points): Question(points=points) for points in (1, 5, 0)}
    forms = [name for name in networks.SPECS if name not in INTERACTIVES]
    cells = {
        (form, column): Asked(form, question)
        for form in forms
        for column, question in columns.items()
    }
    claims = [
        Claim(f"{column}: {low} < {high}", (low, column), (high, column))
        for column in columns
        for low, high in ((FOREGROUND, GUIDED), (SEPARATE, GUIDED), (EARLY, GUIDED))
    ]
    claims.append(Claim("dense: late global < oracle", (GUIDED, "dense"), (ORACLE, "dense")))
    return Table("Forms of fusion, one shot", cells, (*claims,))


def _annotation() -> Table:
    cells = {
        (_shots(shots), _points(points)): Asked(GUIDED, Question(shots=shots, points=points))
        for shots in SHOTS
        for points in POINTS
    }
    cells |= {(FOREGROUND, _points(p)): Asked(FOREGROUND, Question()) for p in POINTS}
    one, most = _shots(1), _shots(SHOTS[-1])
    claims = (
        Claim("one shot: more points help", (one, "1 point"), (one, "dense")),
        Claim("one point: more shots help", (one, "1 point"), (most, "1 point")),
        Claim(
            "two points reach nine tenths of dense marks", (one, "dense"), (one, "2 points"), 0.9
        ),
        Claim("one point of one shot helps", (FOREGROUND, "1 point"), (one, "1 point")),
    )
    return Table("IU against points and shots", cells, claims, "marks of each class and image")


def _interactive() -> Table:
    """Instances of held-out digits, by marks in the image itself."""
    cells = {
        (network, _points(points)): Asked(network, Question(points=points, kind="interactive"))
        for network in INTERACTIVES
        for points in POINTS
    }
    claims = (
        Claim("more points help", (INTERACTIVE, "1 point"), (INTERACTIVE, "dense")),
        Claim("1 point: early < late", (EARLY_INTERACTIVE, "1 point"), (INTERACTIVE, "1 point")),
        Claim("1 point: global < local", (INTERACTIVE, "1 point"), (LOCAL, "1 point")),
    )
    return Table("Instances by marks in the image", cells, claims, "marks of each class")


def _ways() -> Table:
    cells = {
        (_points(points), f"{ways} ways"): Asked(GUIDED, Question(ways=ways, points=points))
        for points in (5, 0)
        for ways in WAYS
    }
    claims = (Claim("five ways are harder than two", ("dense", "5 ways"), ("dense", "2 ways")),)
    return Table("Two to five ways, one shot of each object", cells, claims)


def _tasks() -> Table:
    """Trained on instances, asked for classes by one point in each of more and more images."""
    rows = {"trained on instances": INTERACTIVE, "trained on classes": GUIDED}
    cells = {
        (row, _shots(shots)): Asked(network, Question(shots=shots, points=1))
        for row, network in rows.items()
        for shots in (*SHOTS, 25)
    }
    for shots in (*SHOTS, 25):
        cells[FOREGROUND, _shots(shots)] = Asked(FOREGROUND, Question(points=1))
        cells[ORACLE, _shots(shots)] = Asked(ORACLE, Question(shots=shots, points=1))
    row, most = "trained on instances", _shots(25)
    claims = (
        Claim("more shots help across tasks", (row, _shots(1)), (row, most)),
        Claim("guidance crosses tasks", (FOREGROUND, most), (row, most)),
    )
    return Table("From instances to classes", cells, claims, "shots of one point")


def _many() -> Table:
    """Guidance, and a supervised learner that starts from the same encoder."""
    cells = {}
    for shots in MANY:
        cells[GUIDED, _shots(shots)] = Asked(GUIDED, Question(shots=shots))
        cells[TUNED, _shots(shots)] = Asked(FOREGROUND, Question(shots=shots, tuned=True))
    few, many = _shots(MANY[0]), _shots(MANY[-1])
    claims = (
        Claim("few shots: guidance is above fine-tuning", (TUNED, few), (GUIDED, few)),
        Claim("many shots: fine-tuning is above guidance", (GUIDED, many), (TUNED, many)),
    )
    return Table("From few to many dense shots", cells, claims, "dense shots")


TABLES = {
    "forms": _forms(),
    "annotation": _annotation(),
    "interactive": _interactive(),
    "ways": _ways(),
    "tasks": _tasks(),
    "many": _many(),
}
