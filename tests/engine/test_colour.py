"""Colours of whole pictures."""

import pytest
import torch
from conftest import wave

from nst_pipeline.engine.colour import grey, match_colours, match_luminance, moments


def test_colours_are_matched_in_mean_and_covariance() -> None:
    pixels, reference = 0.3 + 0.2 * wave(seed=1), 0.3 + 0.3 * wave(seed=2)
    matched = match_colours(pixels, moments(reference))
    flat = [x.double().flatten(2)[0] for x in (matched, reference)]
    torch.testing.assert_close(flat[0].mean(1), flat[1].mean(1), rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.cov(flat[0]), torch.cov(flat[1]), rtol=0.02, atol=1e-4)


def test_luminance_is_matched_in_mean_and_deviation() -> None:
    matched = match_luminance(0.4 + 0.1 * wave(seed=1), 0.2 + 0.5 * wave(seed=2))
    wanted = grey(0.2 + 0.5 * wave(seed=2))
    assert matched.mean().item() == pytest.approx(wanted.mean().item(), abs=1e-3)
    assert matched.std().item() == pytest.approx(wanted.std().item(), rel=0.02)


def test_only_visible_pixels_have_colours() -> None:
    wide, reference = torch.cat([wave(seed=1), wave(seed=2)], 3), wave(seed=3)
    alpha = torch.ones(1, 1, 48, 128)
    alpha[..., 64:] = 0
    for ours, wanted in zip(moments(wide, alpha), moments(wave(seed=1)), strict=True):
        torch.testing.assert_close(ours, wanted)
    matched = match_colours(wide, moments(reference), alpha)[..., :64]
    wanted = match_colours(wave(seed=1), moments(reference))
    torch.testing.assert_close(matched, wanted, rtol=1e-3, atol=1e-4)
    matched = match_luminance(wide, wide, alpha, 1 - alpha)[..., :64]
    wanted = match_luminance(wave(seed=1), wave(seed=2))
    torch.testing.assert_close(matched, wanted, rtol=1e-3, atol=1e-3)
