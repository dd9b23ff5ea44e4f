"""Which settings are worth their cost."""

from itertools import pairwise

import pytest

from tvit_seg.evaluation import pareto_front


def points(*pairs):
    return [dict(gmacs=gmacs, mIoU=miou) for gmacs, miou in pairs]


@pytest.mark.parametrize(
    ("given", "front"),
    [
        ([(3, 50), (1, 30), (2, 40)], [(1, 30), (2, 40), (3, 50)]),
        ([(1, 30), (2, 29), (3, 31)], [(1, 30), (3, 31)]),
        ([(1, 30), (1, 35), (2, 35)], [(1, 35)]),
        ([(1, 30), (1, 30)], [(1, 30)]),
        ([(1, float("nan")), (float("nan"), 90), (2, 10)], [(2, 10)]),
        ([], []),
    ],
)
def test_front(given, front):
    assert pareto_front(points(*given)) == points(*front)


def test_nothing_off_the_front_is_unbeaten():
    given = points(*[(i * 7 % 11, i * 5 % 13) for i in range(40)])
    front = pareto_front(given)
    for point in given:
        beaten = any(f["gmacs"] <= point["gmacs"] and f["mIoU"] >= point["mIoU"] for f in front)
        assert beaten
    for a, b in pairwise(front):
        assert a["gmacs"] < b["gmacs"]
        assert a["mIoU"] < b["mIoU"]


def test_other_keys():
    given = [dict(ms=2, top1=70.0, keep_ratio=0.7), dict(ms=1, top1=71.0, keep_ratio=0.5)]
    assert pareto_front(given, cost="ms", quality="top1") == given[1:]
