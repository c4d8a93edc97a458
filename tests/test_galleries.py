"""Galleries: which images they show, in which order, and with which words."""

import dataclasses
import io

import numpy as np
import pytest
from matplotlib.text import Text

from transfer.evaluation.explain import Explanations, FeatureMaps
from transfer.plots import galleries


def texts(figure):
    """Every text of the figure that a reader sees."""
    return [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_text()]


def draw(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    assert buffer.getvalue().startswith(b"\x89PNG")


def sample(num_images=20, channels=1):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, 9, 7, channels), dtype=np.uint8)
    y_true = np.arange(num_images) % 4
    return images, y_true, np.eye(4)[y_true] * 0.6 + 0.1


def test_sample_predictions_tell_right_from_wrong():
    images, y_true, y_prob = sample()
    y_prob[3] = [0.05, 0.8, 0.1, 0.05]  # a "d", taken for a "b"
    figure = galleries.plot_sample_predictions(images, y_true, y_prob, list("abcd"), num_each=6)
    found = texts(figure)
    assert "Right: 6 of 19, drawn by chance" in found
    assert "Wrong: 1 of 1, drawn by chance" in found
    assert "b, 80\u00a0%\ntrue: d, 5\u00a0%" in found
    assert sum(text.endswith(", 70\u00a0%") and "true" not in text for text in found) == 6
    wrong = [axes for axes in figure.axes if axes.get_title().startswith("b, 80")]
    assert np.array_equal(wrong[0].images[0].get_array(), images[3, ..., 0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shift, empty", [(0, "Wrong: none"), (1, "Right: none")])
def test_sample_predictions_all_right_or_all_wrong(shift, empty):
    images, y_true, y_prob = sample(channels=3)
    figure = galleries.plot_sample_predictions(
        images, y_true, np.roll(y_prob, shift, 1), list("abcd")
    )
    assert empty in texts(figure)
    draw(figure)


def test_sample_predictions_refuse_another_number_of_images():
    images, y_true, y_prob = sample()
    with pytest.raises(ValueError, match="19, 20, 20"):
        galleries.plot_sample_predictions(images[:19], y_true, y_prob, list("abcd"))


def shown(figure, images):
    """The indices of the test images in a figure, in order."""
    pixels = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    return [next(i for i, image in enumerate(images[..., 0]) if (image == p).all()) for p in pixels]


def mistaken():
    """Of 20 images of classes a to d, four are mistakes; image 5 is the least sure."""
    images, y_true, y_prob = sample()
    y_prob[3] = [0.05, 0.8, 0.1, 0.05]  # d taken for b
    y_prob[7] = [0.0, 0.9, 0.05, 0.05]  # d taken for b
    y_prob[1] = [0.1, 0.1, 0.0, 0.8]  # b taken for d
    y_prob[2] = [0.7, 0.1, 0.1, 0.1]  # c taken for a
    y_prob[5] = [0.2, 0.3, 0.25, 0.25]
    return images, y_true, y_prob


def test_mistakes_and_doubts_come_in_order_of_confidence():
    images, y_true, y_prob = mistaken()
    figure = galleries.plot_mistakes_and_doubts(images, y_true, y_prob, list("abcd"), num_each=3)
    assert shown(figure, images)[:4] == [7, 1, 3, 5]  # 1 and 3 tie, in the order of the images
    found = texts(figure)
    assert "Wrong: 3 of 4, the surest first" in found
    assert "Right or wrong: 3 of 20, the least sure first" in found
    assert "b, 90\u00a0%\ntrue: d, 5\u00a0%" in found


def test_images_of_files_are_named():
    images, y_true, y_prob = mistaken()
    paths = [f"cat/{index}.png" for index in range(19)] + ["cat/$odd$/" + "x" * 40 + "/19.png"]
    paths[7] = "a long folder of holidays/IMG_7.jpg"
    for plot in (galleries.plot_mistakes_and_doubts, galleries.plot_confused_pairs):
        found = texts(figure := plot(images, y_true, y_prob, list("abcd"), paths=paths))
        assert "\u2026r of holidays/IMG_7.jpg" in found and "cat/3.png" in found
        draw(figure)


def test_images_of_no_files_bear_their_number():
    images, y_true, y_prob = mistaken()
    found = texts(galleries.plot_confused_pairs(images, y_true, y_prob, list("abcd")))
    assert "test image 7" in found and "test image 3" in found


def test_no_text_of_a_sheet_lies_on_another_or_leaves_it():
    images, y_true, y_prob = mistaken()
    names = ["a class of a long name", "b", "c", "another, of a longer name"]
    paths = [f"a/folder/of/photos/IMG_{index:04}.jpg" for index in range(20)]
    figure = galleries.plot_mistakes_and_doubts(images, y_true, y_prob, names, paths=paths)
    figure.canvas.draw()
    shown = [t for t in figure.findobj(Text) if t.get_text()]
    boxes = [text.get_window_extent() for text in shown]
    pictures = [axes.get_window_extent() for axes in figure.axes]
    whole = figure.bbox
    for number, box in enumerate(boxes):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0, shown[number]
        assert not any(box.overlaps(other) for other in boxes[:number]), shown[number]
        assert not any(box.padded(-1).overlaps(picture) for picture in pictures), shown[number]


def test_confused_pairs_show_both_sides_and_the_worst_pair_first():
    images, y_true, y_prob = mistaken()
    figure = galleries.plot_confused_pairs(images, y_true, y_prob, list("abcd"), num_pairs=2)
    headings = [text for text in texts(figure) if " taken for " in text and ":" in text]
    assert headings == [
        "d taken for b: 2 of 2, the surest first",
        "b taken for d: 1 of 1, the surest first",
        "c taken for a: 1 of 1, the surest first",
        "a taken for c: none",
    ]
    assert shown(figure, images) == [7, 3, 1, 2]
    draw(figure)


@pytest.mark.filterwarnings("error")
def test_galleries_without_a_mistake_say_so():
    images, y_true, y_prob = sample(channels=3)
    figure = galleries.plot_confused_pairs(images, y_true, y_prob, list("abcd"))
    assert "No class was taken for another" in texts(figure)
    draw(figure)
    figure = galleries.plot_mistakes_and_doubts(images, y_true, y_prob, list("abcd"), num_each=3)
    assert "Wrong: none" in texts(figure)
    draw(figure)


@pytest.mark.parametrize(
    "plot", [galleries.plot_mistakes_and_doubts, galleries.plot_confused_pairs]
)
def test_galleries_refuse_another_number_of_images(plot):
    images, y_true, y_prob = sample()
    with pytest.raises(ValueError, match="20, 19, 20"):
        plot(images, y_true[:19], y_prob, list("abcd"))


def test_augmentation_shows_originals_beside_their_views():
    originals = np.full((2, 4, 4, 1), 200, dtype=np.uint8)
    augmented = np.full((2, 3, 6, 6, 3), 99.6, dtype=np.float32)
    augmented[0, 0, 0, 0] = (-0.2, 255.4, 128.0)
    figure = galleries.plot_augmentation(originals, augmented)
    assert len(figure.axes) == 2 * 4
    assert figure.axes[0].images[0].get_array().shape == (4, 4)
    view = figure.axes[1].images[0].get_array()
    assert view.dtype == np.uint8  # floats would be taken for [0, 1] and clipped to white
    assert view[0, 0].tolist() == [0, 255, 128] and view[1, 1].tolist() == [100] * 3
    assert "original\n4 x 4 pixels" in texts(figure)
    draw(figure)


def test_augmentation_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 1\) and \(3, 1, 6, 6, 3\)"):
        galleries.plot_augmentation(np.zeros((2, 4, 4, 1)), np.zeros((3, 1, 6, 6, 3)))


def test_explanations_show_each_image_above_its_maps():
    images, y_true, y_prob = mistaken()
    maps = np.random.default_rng(0).uniform(size=(5, 4, 4)).astype(np.float32)
    explanations = Explanations(
        right=np.array([0, 4]),
        wrong=np.array([7, 1, 3]),
        for_predicted=maps,
        for_true=maps[:3] / 2,
        layer="some_relu",
        example=0,
        feature_maps=[],
    )
    figure = galleries.plot_explanations(images, y_true, y_prob, list("abcd"), explanations)
    found = texts(figure)
    assert not any("some_relu" in text for text in found)
    assert found.count("for the predicted class") == 2 and found.count("for the true class") == 1
    assert "nothing speaks for it" not in found
    assert "b, 90\u00a0%\ntrue: d, 5\u00a0%" in found
    drawn = [image.get_array() for axes in figure.axes for image in axes.images]
    over = [array for array in drawn if array.shape == (4, 4)]
    np.testing.assert_array_equal(np.stack(over), np.concatenate([maps, maps[:3] / 2]))
    draw(figure)
    empty = dataclasses.replace(explanations, for_true=maps[:3] * [[[1]], [[0]], [[1]]])
    found = texts(galleries.plot_explanations(images, y_true, y_prob, list("abcd"), empty))
    assert found.count("nothing speaks for it") == 1
    nothing = dataclasses.replace(
        explanations, wrong=np.array([], int), for_true=maps[:0], for_predicted=maps[:2]
    )
    figure = galleries.plot_explanations(images, y_true, y_prob, list("abcd"), nothing)
    assert not any("Wrong" in text for text in texts(figure))


def test_feature_maps_show_the_channels_that_vary_most():
    maps = np.zeros((4, 4, 9), np.float32)
    maps[range(3), range(3), 1:4] = np.diag([5, 1, 2])
    maps[0, 0, 5] = 4  # like channel 1, but weaker
    layers = [FeatureMaps("first", maps), FeatureMaps("second", maps[..., :2])]
    layers.append(FeatureMaps("too coarse", maps[:3, :3]))
    figure = galleries.plot_feature_maps(np.zeros((6, 8, 3), np.uint8), layers)
    found = texts(figure)
    assert "Test image, 6 x 8 pixels" in found
    assert "Depth 1 of 2: 4 x 4 cells, 3 of 9 channels, those that vary most" in found
    assert "Depth 2 of 2: 4 x 4 cells, 1 of 2 channels, those that vary most" in found
    channels = [text for text in found if text.startswith("channel ")]
    assert channels == [f"channel {number}" for number in (1, 3, 2, 1)]
    draw(figure)
