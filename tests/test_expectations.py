"""Every "yes" of docs/expectations.md names a test that there is."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "expectations.md").read_text().splitlines()
    if re.match(r"\| \d+ \|", line)
]


def test_forty_rows_and_their_tests():
    assert [row[0] for row in ROWS] == [str(number) for number in range(1, 41)]
    for number, _, ours, peer, proof in ROWS:
        answers = ("yes", "partly", "no")
        assert ours.split(",")[0] in answers and re.match(r"(\w+: )?\w+", peer), number
        named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", proof)
        assert named or not ours.startswith("yes"), number
        for file, function in named:
            text = (ROOT / "tests" / file).read_text()
            assert f"def {function or 'test_'}" in text, (number, file, function)
