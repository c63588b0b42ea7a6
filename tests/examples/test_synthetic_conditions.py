"""Weather and time of day: they change the picture, as they should, and nothing else."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.cityscapes.__main__ import main
from examples.cityscapes.labels import LABEL_ID
from examples.rendered_scenes import sample_scene
from examples.rendered_scenes.conditions import (
    MIXED,
    TIMES,
    WEATHERS,
    Conditions,
    sample_conditions,
)
from examples.rendered_scenes.night import blur

SIZE = (64, 128)
INDICES = range(6)


@pytest.fixture(scope="module")
def scenes():
    return {
        (weather, time): [
            sample_scene("train", k, size=SIZE, seed=4, weather=weather, time=time) for k in INDICES
        ]
        for weather, time in itertools.product(WEATHERS, TIMES)
    }


def _grey(scenes, *, where=None):
    values = [s.image.mean(2)[slice(None) if where is None else where(s)] for s in scenes]
    return np.concatenate([v.ravel() for v in values])


def _is_ground(scene):
    return np.isin(scene.label_ids, [LABEL_ID[n] for n in ("sidewalk", "terrain")])


def test_weather_and_time_change_the_image_and_nothing_else(scenes):
    for under, others in scenes.items():
        for plain, scene in zip(scenes["clear", "day"], others, strict=True):
            assert np.array_equal(scene.image, plain.image) == (under == ("clear", "day"))
            for name in ("label_ids", "instance_ids", "disparity", "inverse_depth"):
                assert np.array_equal(getattr(scene, name), getattr(plain, name))
            assert scene.camera == plain.camera


@pytest.mark.parametrize("weather", WEATHERS)
def test_it_gets_darker_from_day_to_night(scenes, weather):
    day, dusk, night = (_grey(scenes[weather, time]).mean() for time in TIMES)
    assert day > 1.25 * dusk > 1.5 * night
    assert night > 8  # lamps and headlights leave something to be seen


def test_windows_and_lamps_shine_at_night(scenes):
    brightest = [np.percentile(scene.image, 99.5) for scene in scenes["clear", "night"]]
    assert np.median(brightest) > 3 * _grey(scenes["clear", "night"]).mean()


def test_fog_hides_what_is_far_and_leaves_what_is_near(scenes):
    def contrast(weather, where):
        return np.mean(
            [s.image.mean(2)[where(s)].std() for s in scenes[weather, "day"] if where(s).sum() > 50]
        )

    def far(scene):
        return (scene.inverse_depth > 0) & (scene.inverse_depth < 1 / 40)

    def near(scene):
        return scene.inverse_depth > 1 / 6

    assert contrast("fog", far) < 0.35 * contrast("rain", far)
    assert contrast("fog", near) > 0.6 * contrast("rain", near)


def test_snow_whitens_sidewalks_and_grass(scenes):
    snow, rain = (_grey(scenes[w, "day"], where=_is_ground).mean() for w in ("snow", "rain"))
    assert snow > 1.5 * rain


def test_a_wet_road_mirrors_the_colours_of_what_stands_behind(scenes):
    def likeness(scene):
        """Correlation, column by column, of the road with its mirror image behind its far edge."""
        road = scene.label_ids == LABEL_ID["road"]
        pairs = []
        for column in range(SIZE[1]):
            edge = int(np.argmax(road[:, column]))  # the farthest road: what is above stands there
            depth = min(edge, SIZE[0] - edge, 12)
            if depth > 1 and road[edge : edge + depth, column].all():
                rows = np.arange(1, depth)
                pairs.append(scene.image[[edge + rows, edge - rows], column])
        below, above = np.concatenate(pairs, axis=1).reshape(2, -1)
        return np.corrcoef(below, above)[0, 1]

    pairs = zip(scenes["rain", "day"], scenes["clear", "day"], strict=True)
    assert np.mean([likeness(rain) > likeness(clear) for rain, clear in pairs]) > 0.7


def test_mixed_scenes_are_those_of_the_weather_and_time_drawn(scenes):
    seen = set()
    for index in INDICES:
        mixed = sample_scene("train", index, size=SIZE, seed=4, weather=MIXED, time=MIXED)
        alike = [
            c for c, found in scenes.items() if np.array_equal(found[index].image, mixed.image)
        ]
        assert len(alike) == 1
        seen |= set(alike)
    assert len(seen) > 3


@given(st.integers(0, 2**32), st.sampled_from(WEATHERS), st.sampled_from(TIMES))
def test_asking_for_a_weather_leaves_the_times_as_they_are(seed, weather, time):
    def draw(*given):
        return sample_conditions(np.random.default_rng(seed), *given)

    mixed = draw(MIXED, MIXED)
    assert draw(weather, MIXED) == Conditions(weather, mixed.time)
    assert draw(MIXED, time) == Conditions(mixed.weather, time)


def test_every_weather_and_time_is_drawn_about_equally_often():
    rng = np.random.default_rng(0)
    drawn = [sample_conditions(rng, MIXED, MIXED) for _ in range(3000)]
    for condition in itertools.starmap(Conditions, itertools.product(WEATHERS, TIMES)):
        assert 180 < drawn.count(condition) < 320


@pytest.mark.parametrize(("flag", "known"), [("--weather", WEATHERS), ("--time", TIMES)])
def test_an_unknown_condition_is_refused_in_one_line(tmp_path, capsys, flag, known):
    assert main(["synthesize", "--out", str(tmp_path / "out"), flag, "hail"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{flag} should be one of {', '.join(known)}, mixed. Found hail." in error
    assert not any(tmp_path.iterdir())


def test_a_blur_is_the_mean_over_a_square_with_black_beyond_the_border():
    planes = np.random.default_rng(0).random((3, 9, 12))
    padded = np.pad(planes, ((0, 0), (2, 2), (2, 2)))
    expected = [[padded[:, y : y + 5, x : x + 5].mean((1, 2)) for x in range(12)] for y in range(9)]
    np.testing.assert_allclose(blur(planes, 2), np.moveaxis(expected, 2, 0), atol=1e-5)
