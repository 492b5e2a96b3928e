"""What the tables show, and what is claimed of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rfjax.studies.guided import networks
from rfjax.studies.guided.networks import (
    ALONE,
    BY_CLICKS,
    BY_FRAMES,
    CLIPS,
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
TUNED, TUNING = "fine-tuned on the support", 100  # steps
FRAMES = (1, 2, 5)


@dataclass(frozen=True)
class Question:
    """Episodes of held-out digits, or clips that are segmented by marks in some of their frames.

    Attributes:
      ways, shots, points, kind: see `rfjax.data.episodes.Rules`; 0 points are all. The shots of a
        clip are frames at equal distances, the first one among them.
      tuned: steps in which the network is fine-tuned on the support instead of being guided by it.
    """

    ways: int = 2
    shots: int = 1
    points: int = 0
    kind: str = "semantic"
    tuned: int = 0

    @property
    def name(self) -> str:
        """The name of the file of its answer."""
        parts = [self.kind, f"{self.ways}ways", f"{self.shots}shots", f"{self.points}points"]
        return "-".join(parts + [f"tuned{self.tuned}"] * (self.tuned > 0))


@dataclass(frozen=True)
class Asked:
    """A network and a question to it.

    Attributes:
      network: one of `networks.SPECS`.
      question: that it is asked.
      read: which number of its answer is shown; shares, whose names end in "iu", in %.
    """

    network: str
    question: Question
    read: str = "positive_iu"


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
      data: that the networks have learned from, one of `networks.SCALES`.
    """

    title: str
    cells: Mapping[Place, Asked]
    claims: tuple[Claim, ...] = ()
    curve: str = ""
    data: str = networks.DATA


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
        cells[TUNED, _shots(shots)] = Asked(FOREGROUND, Question(shots=shots, tuned=TUNING))
    few, many = _shots(MANY[0]), _shots(MANY[-1])
    claims = (
        Claim("few shots: guidance is above fine-tuning", (TUNED, few), (GUIDED, few)),
        Claim("many shots: fine-tuning is above guidance", (GUIDED, many), (TUNED, many)),
    )
    return Table("From few to many dense shots", cells, claims, "dense shots")


def _clicks() -> Table:
    """Clips whose frames are marked each by itself."""
    rows = {"trained so": BY_CLICKS, "trained on marks in other frames": BY_FRAMES}
    cells = {
        (row, _points(points)): Asked(network, Question(points=points, kind="interactive"))
        for row, network in rows.items()
        for points in POINTS
    }
    cells |= {(FOREGROUND, _points(p)): Asked(ALONE, Question(kind="interactive")) for p in POINTS}
    one = next(iter(rows))
    claims = (
        Claim("more clicks help", (one, "1 point"), (one, "dense")),
        Claim("one click helps", (FOREGROUND, "1 point"), (one, "1 point")),
    )
    title = "Objects in frames, by clicks in the frame itself"
    return Table(title, cells, claims, "clicks on the object, and as many beside it", CLIPS)


def _first_frame() -> Table:
    """The protocol of DAVIS: the first frame is known, all others are to be segmented."""
    columns = {"IU": "positive_iu", "IU by clip": "clip_iu", "s to learn a clip": "seconds"}
    rows = {
        f"guided, {_points(points)}": Asked(BY_FRAMES, Question(points=points, kind="video"))
        for points in (1, 5, 0)
    }
    for steps in (10, TUNING):
        asked = Asked(ALONE, Question(kind="video", tuned=steps))
        rows[f"fine-tuned for {steps} steps, dense"] = asked
    rows[FOREGROUND] = Asked(ALONE, Question(kind="video"))
    cells = {
        (row, column): replace(asked, read=read)
        for row, asked in rows.items()
        for column, read in columns.items()
    }
    guided, few, most = "guided, dense", "fine-tuned for 10 steps, dense", [*rows][-2]
    claims = (
        Claim("guidance helps", (FOREGROUND, "IU"), (guided, "IU")),
        Claim("five points keep 0.87 of dense marks", (guided, "IU"), ("guided, 5 points", "IU"),
              0.87),
        Claim("guidance is above a few steps", (few, "IU"), (guided, "IU")),
        Claim("guidance is above many steps", (most, "IU"), (guided, "IU")),
        Claim("guidance takes a hundredth of their time", (guided, "s to learn a clip"),
              (most, "s to learn a clip"), 100.0),
    )  # fmt: skip
    return Table("Clips by their first frame", cells, claims, data=CLIPS)


def _dots() -> Table:
    """Clips by a few points in several of their frames."""
    cells = {
        (_points(points), f"{frames} frame" + "s" * (frames > 1)): Asked(
            BY_FRAMES, Question(shots=frames, points=points, kind="video")
        )
        for points in (1, 5, 0)
        for frames in FRAMES
    }
    claims = (
        Claim("1 point: more frames help", ("1 point", "1 frame"), ("1 point", "5 frames")),
        Claim("dense: more frames help", ("dense", "1 frame"), ("dense", "5 frames")),
    )
    return Table("Clips by dots in several frames", cells, claims, data=CLIPS)


TABLES = {
    "forms": _forms(),
    "annotation": _annotation(),
    "interactive": _interactive(),
    "ways": _ways(),
    "tasks": _tasks(),
    "many": _many(),
    "clicks": _clicks(),
    "first_frame": _first_frame(),
    "dots": _dots(),
}
