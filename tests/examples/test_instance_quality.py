"""Instances on rendered scenes, from exact vectors and from a good network's."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import adjusted_rand_score

from examples.cityscapes.data import targets
from examples.cityscapes.scene.clustering import METHODS
from examples.cityscapes.scene.grouping import Grouping, find_instances, group_pixels, typical_area
from examples.common.errors import InputError
from examples.rendered_scenes.write import sample_scene
from tests.examples.tiny_tree import offsets

SIZE = (128, 256)
NOISE = 3.5
"""Mean `|dx| + |dy|` in pixels of 128x256: the error of the paper's best network at this size."""
SMALLEST = 64
"""Pixels of 128x256 from which on an instance has to be found, 64x64 pixels of the original."""

methods = pytest.mark.parametrize("method", METHODS)


def scene(index, size=SIZE):
    """Return instance ids, classes and exact vectors of a rendered scene."""
    rendered = sample_scene("val", index, size=size, seed=0)
    ids = torch.from_numpy(rendered.instance_ids.astype(np.int32))
    ids = targets.evaluated_instances(ids)
    classes = targets.train_ids(torch.from_numpy(rendered.label_ids)).numpy()
    return ids.numpy(), classes, offsets(ids, targets.find_centroids(ids)).numpy()


def network_error(shape, seed):
    """Return errors of vectors: half of them smooth, as those of a network are, half not."""
    rng = np.random.default_rng(seed)
    rough = rng.laplace(0, 1, (2, *shape))
    smooth = gaussian_filter(rng.normal(0, 1, (2, *shape)), (0, 6, 6))
    error = rough / rough.std() + smooth / smooth.std()
    return error * NOISE * shape[1] / SIZE[1] / np.abs(error).sum(axis=0).mean()


def of_area(ids, smallest):
    values, areas = np.unique(ids[ids > 0], return_counts=True)
    return np.isin(ids, values[areas >= smallest])


@methods
def test_with_the_error_of_the_paper_s_network_instances_are_nearly_the_true_ones(method):
    scores = []
    for index in range(4):
        ids, classes, offsets = scene(index)
        found = find_instances(
            offsets + network_error(SIZE, index), classes, Grouping(clustering=method)
        )
        large = of_area(ids, SMALLEST)
        scores.append(adjusted_rand_score(ids[large], found[large]))
    assert min(scores) >= 0.95


def test_a_sample_of_the_votes_gives_what_all_of_them_would():
    index = 1  # of the first ten, the one with fewest pixels: all votes take time
    ids, classes, offsets = scene(index)
    assert 2 * Grouping().max_votes < np.count_nonzero(ids) < 20_000
    offsets = offsets + network_error(SIZE, index)
    sampled = find_instances(offsets, classes)
    of_all = find_instances(offsets, classes, Grouping(max_votes=20_000))
    mask = ids > 0
    assert adjusted_rand_score(of_all[mask], sampled[mask]) >= 0.95


@methods
def test_exact_vectors_give_back_every_instance_if_even_the_smallest_may_found_one(method):
    grouping = Grouping(clustering=method, min_area=1e-3, reach=1e-3, max_votes=20_000)
    ids, classes, offsets = scene(1)
    found = find_instances(offsets, classes, grouping)
    mask = of_area(ids, 3)  # two votes make a cluster, and one of those is the vote itself
    assert adjusted_rand_score(ids[mask], found[mask]) == pytest.approx(1.0)


@methods
def test_exact_vectors_give_back_instances_of_the_stated_area_by_default(method):
    for index in range(4):
        ids, classes, offsets = scene(index)
        found = find_instances(offsets, classes, Grouping(clustering=method))
        mask = of_area(ids, SMALLEST)
        assert adjusted_rand_score(ids[mask], found[mask]) > 0.97


def test_a_full_size_image_is_grouped():
    ids, classes, offsets = scene(3, size=(1024, 2048))
    assert np.count_nonzero(ids) > 250_000
    offsets = (offsets + network_error(ids.shape, 0)).astype(np.float32)
    found = find_instances(offsets, classes)
    large = of_area(ids, SMALLEST * 64)
    assert adjusted_rand_score(ids[large], found[large]) >= 0.95


@pytest.mark.parametrize("radius", [4, 10, 40])
def test_the_typical_area_of_discs_is_their_own(radius):
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = rows**2 + columns**2 <= radius**2
    vectors = -np.stack([columns[inside], rows[inside]], axis=1).astype(float)
    assert typical_area(vectors, finest=0.5) == pytest.approx(inside.sum(), rel=0.25)


def test_instances_do_not_depend_on_the_scale_of_the_image():
    ids, classes, offsets = scene(0)
    error = network_error(SIZE, 0)
    small = find_instances(offsets + error, classes)

    def twice(values):
        return values.repeat(2, axis=-1).repeat(2, axis=-2)

    # A pixel becomes four, whose votes are half a pixel off either way.
    large = find_instances(2 * twice(offsets + error), twice(classes))
    mask = ids > 0
    assert adjusted_rand_score(small[mask], large[::2, ::2][mask]) > 0.97


@pytest.mark.parametrize("index", [0, 2])
def test_an_image_on_its_side_has_the_same_instances(index):
    ids, classes, offsets = scene(index)
    offsets = offsets + network_error(SIZE, index)
    upright = find_instances(offsets, classes)
    turned = find_instances(offsets[::-1].transpose(0, 2, 1), classes.T).T
    assert turned.max() == upright.max()
    assert adjusted_rand_score(upright[ids > 0], turned[ids > 0]) > 0.99


def test_more_groups_than_pixels_are_never_numbered():
    mask = np.zeros((16, 64), dtype=bool)
    mask[4:12, 4:60] = True
    offsets = np.random.default_rng(0).normal(0, 6, (2, 16, 64))
    groups = group_pixels(offsets, mask, Grouping(min_area=1e-3, reach=0.005))
    np.testing.assert_array_equal(np.unique(groups), np.arange(groups.max() + 1))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"clustering": "kmeans"}, "--clustering: should be optics or hdbscan; found 'kmeans'"),
        ({"reach": 0.0}, "--reach"),
        ({"min_area": float("nan")}, "--min-area"),
        ({"max_votes": 0}, "max_votes"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options, named):
    with pytest.raises(InputError, match=named):
        Grouping(**options)
