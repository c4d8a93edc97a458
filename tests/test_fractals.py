"""Sprites and textures: what is drawn, and that the seed alone decides it."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import ndimage

from transfer.pretraining import fractals, textures

HALVES = [[0.5, 0, 0], [0, 0.5, 0]], [[0.5, 0, 0.5], [0, 0.5, 0]], [[0.5, 0, 0], [0, 0.5, 0.5]]
SIERPINSKI = np.array(HALVES)  # its attractor is the triangle (0, 0), (1, 0), (0, 1) with holes


@given(count=st.integers(1, 6), share=st.floats(0, 1), seed=st.integers(0, 2**31))
@example(count=3, share=5e-324, seed=277130)  # bounds that rounding puts in the wrong order
def test_singular_values_have_the_sum_asked_for(count, share, seed):
    total = share * 3 * count
    values = fractals.sample_singular_values(count, total, np.random.default_rng(seed))
    s1, s2 = values.T
    assert (s2 >= -1e-9).all() and (s1 >= s2 - 1e-9).all() and (s1 <= 1 + 1e-9).all()
    assert (s1 + 2 * s2).sum() == pytest.approx(total)


def test_systems_contract_and_are_of_middling_size():
    generator = np.random.default_rng(0)
    systems = [fractals.sample_system(generator) for _ in range(200)]
    assert {len(maps) for maps in systems} == {2, 3, 4}
    for maps in systems:
        values = np.linalg.svd(maps[:, :, :2], compute_uv=False)
        assert values.max() <= 1 + 1e-9
        assert 5 + len(maps) <= 2 * (values @ [1, 2]).sum() <= 6 + len(maps)
    determinants = np.concatenate([np.linalg.det(maps[:, :, :2]) for maps in systems])
    assert (determinants > 0).any() and (determinants < 0).any()  # turned, and mirrored


def test_jitter_changes_one_map_and_keeps_it_a_contraction():
    generator = np.random.default_rng(0)
    for _ in range(20):
        maps = fractals.sample_system(generator)
        variants = fractals.jitter_system(maps, 100, generator)
        changed = np.any(variants != maps, axis=(2, 3))
        assert (changed.sum(1) == 1).all() and changed.any(0).all()
        assert np.linalg.svd(variants[..., :2], compute_uv=False).max() <= 1 + 1e-9


def test_the_chaos_game_stays_on_the_attractor():
    x, y = fractals.play_chaos_game(SIERPINSKI[None], np.random.default_rng(0))[:, 0]
    assert min(x.min(), y.min()) >= 0 and (x + y).max() <= 1
    in_the_hole = (x < 0.5) & (y < 0.5) & (x + y > 0.5)
    assert not in_the_hole[np.abs(x + y - 0.5) > 1e-3].any()
    thirds = np.mean(x > 0.5), np.mean(y > 0.5)
    assert thirds == pytest.approx((1 / 3, 1 / 3), abs=0.02)


def test_a_map_is_taken_as_often_as_it_covers_much():
    large, small = [[0.75, 0, 0], [0, 0.75, 0]], [[0.25, 0, 0.75], [0, 0.25, 0.75]]
    x, _ = fractals.play_chaos_game(np.array([[large, small]]), np.random.default_rng(0))[:, 0]
    assert np.mean(x > 0.75) == pytest.approx(0.25**2 / (0.75**2 + 0.25**2), abs=0.02)


def test_a_sprite_is_filled_from_edge_to_edge_with_patches():
    corners = np.array([[[0.0, 1.0]], [[0.0, 5.0]]], np.float32)  # (0, 0) and (1, 5)
    sprite = fractals.draw_points(corners, np.random.default_rng(0))[0] > 0
    assert sprite[1, 1] and sprite[-2, -2]  # the middles of the two patches
    assert not sprite[3:-3].any() and not sprite[:, 3:-3].any()
    assert 2 <= sprite.sum() <= 18


def test_a_class_is_the_same_in_every_bank_of_its_seed():
    bank = fractals.render_bank(3, 2, 4, seed=5)
    assert bank.shape == (5, 4, 64, 64) and bank.dtype == np.uint8
    np.testing.assert_array_equal(bank[:2], fractals.render_bank(2, 0, 4, seed=5))
    np.testing.assert_array_equal(bank[3:], fractals.render_bank(0, 2, 4, seed=5))
    assert (bank != fractals.render_bank(3, 2, 4, seed=6)).any((2, 3)).all()
    covered = (bank > 0).mean((2, 3))
    assert (covered > 0.01).all() and (covered < 0.99).all()


def test_variants_of_a_class_differ_but_less_than_classes_do():
    bank = np.stack([_upright(fractals.render_system(0, number, 8)) for number in range(6)])
    middle = bank.mean(1, keepdims=True)
    within = np.abs(bank - middle).mean()
    between = np.abs(bank - np.roll(middle, 1, axis=0)).mean()
    assert 0 < within < 0.7 * between


def _upright(sprites):
    """Undoes the mirroring along the diagonal: each sprite as it is most like the first."""
    sprites = sprites.astype(float)
    turned = sprites.transpose(0, 2, 1)
    closer = ((turned - sprites[0]) ** 2).sum((1, 2)) < ((sprites - sprites[0]) ** 2).sum((1, 2))
    return np.where(closer[:, None, None], turned, sprites)


def test_silhouettes_are_whole_and_textured():
    for sprite in np.concatenate([fractals.render_silhouette(0, n, 2) for n in range(10)]):
        assert ndimage.label(sprite > 0, np.ones((3, 3)))[1] == 1
        reach = np.abs(np.argwhere(sprite > 0) - 31.5).max()
        assert reach > 29  # as large as the sprite allows
        assert sprite[sprite > 0].std() > 5


def test_a_bank_is_rendered_once(tmp_path, monkeypatch):
    bank = fractals.load_bank(tmp_path, 2, 1, 2, 0)
    (path,) = tmp_path.glob("sprites-*.npy")
    monkeypatch.setattr(fractals, "render_bank", None)
    np.testing.assert_array_equal(fractals.load_bank(tmp_path, 2, 1, 2, 0), bank)
    with pytest.raises(TypeError):  # another bank is not this one
        fractals.load_bank(tmp_path, 2, 1, 2, 1)
    assert {one.name for one in tmp_path.iterdir()} == {path.name, f"{path.name}.sha256"}


def test_the_spectrum_of_noise_falls_with_its_slope():
    fields = textures.power_noise(np.random.default_rng(0), 20, 64, (1.5, 1.5))
    assert fields.min() == 0 and fields.max() == 1
    amplitude = np.abs(np.fft.rfft2(fields)).mean(0)[0, 1:-1]  # along one axis
    slope = np.polyfit(np.log(np.arange(1, 32)), np.log(amplitude), 1)[0]
    assert slope == pytest.approx(-1.5, abs=0.15)


def test_textures_are_of_three_kinds_and_the_seed_decides_them():
    drawn = textures.make_textures(3, 16)
    assert drawn.shape == (16, 128, 128, 3) and drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, textures.make_textures(3, 16))
    assert (drawn != textures.make_textures(4, 16)).any((1, 2, 3)).all()
    assert (drawn.std((1, 2)).max(-1) > 1).all()  # none is plain
    steps = np.abs(np.diff(drawn.astype(int), axis=2)).mean((1, 2, 3))
    assert steps[:12].max() < steps[14:].min()  # clouds are smooth, leaves have edges
