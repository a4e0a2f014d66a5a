"""Shapes go into a file and come back; whatever else a file holds is refused."""

import json
import math

import pytest

from metacpo.shapes import Disc, Ring, Wall, from_plain, to_plain

SCENE = (Disc(0.5, -1.25, 0.12, "hazard"), Ring(0.0, 0.0, 1.5, "course"), Wall(-0.75), Wall(0.75, half=2.0))


def test_a_scene_comes_back_from_a_file():
    text = json.dumps(to_plain(SCENE), allow_nan=False)
    assert from_plain(json.loads(text)) == SCENE
    assert json.loads(text)[2] == {"kind": "wall", "x": -0.75, "half": None, "role": "wall"}
    assert math.isinf(from_plain([{"kind": "wall", "x": 1, "role": "wall"}])[0].half)


DISC = {"kind": "disc", "x": 0, "y": 0, "radius": 1, "role": "goal"}


@pytest.mark.parametrize(
    "wrong",
    [
        DISC | {"kind": "cone"},
        DISC | {"role": "lava"},
        DISC | {"x": "left"},
        DISC | {"x": None},
        DISC | {"radius": math.inf},
        DISC | {"radius": 1e39},
        DISC | {"height": 1},
        {name: value for name, value in DISC.items() if name != "radius"},
        7,
    ],
)
def test_what_is_no_shape_is_refused(wrong):
    with pytest.raises((ValueError, TypeError, KeyError)):
        from_plain([wrong])
