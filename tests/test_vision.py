"""Images: a score for every patch, whatever form the image comes in, and pictures of it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from generation_fixtures import decoder, image_model, image_processor
from PIL import Image

from flowopt.attribution import Attribution
from flowopt.errors import InputError, MissingDependencyError, UnsupportedError
from flowopt.explainer import Explainer
from flowopt.explainer.images import seen
from flowopt.viz import plot_image
from flowopt.viz.html import to_html
from flowopt.viz.patches import grey, patch_levels, png

mpl.use("Agg")

PICTURE = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(image_model(), image_processor(), tensor="af")


@pytest.fixture(scope="module")
def explained(explainer: Explainer) -> Attribution:
    return explainer.explain_image(Image.fromarray(PICTURE))


@pytest.mark.parametrize("name", ["vit", "deit"])
def test_patches_are_the_last_tokens(name):
    explainer = Explainer(image_model(name), image_processor(), tensor="af")
    found = explainer.explain_image(PICTURE)
    assert found.grid == (3, 2)
    assert found.patch_scores.shape == (3, 2)
    special = 1 if name == "vit" else 2
    assert found.special.sum() == special
    np.testing.assert_array_equal(found.patch_scores.ravel(), found.scores[special:])
    assert found.tokens[special:] == ("0,0", "0,1", "1,0", "1,1", "2,0", "2,1")
    assert found.scores.sum() == pytest.approx(found.value)
    assert found.status == "optimal"
    assert found.settings["output"] == "class"


def test_the_patch_that_is_read_gets_the_score():
    """One patch carries the whole signal: attention of a head that looks at bright patches."""
    model = image_model()
    explainer = Explainer(model, tensor="agf")
    pixels = torch.randn(
        1, 3, 12, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1)
    )
    whole = explainer.explain_inputs(pixel_values=pixels)
    rolled = torch.cat([pixels[:, :, 4:], pixels[:, :, :4]], dim=2)  # rows of patches, turned
    with torch.no_grad():
        model.vit.embeddings.position_embeddings[:] = 0
    moved = [explainer.explain_inputs(pixel_values=each) for each in (pixels, rolled)]
    np.testing.assert_allclose(
        moved[1].patch_scores, np.roll(moved[0].patch_scores, -1, axis=0), rtol=1e-4, atol=1e-9
    )
    assert np.abs(whole.patch_scores - moved[0].patch_scores).max() > 0


def test_every_form_of_an_image_is_the_same_image(explainer, explained):
    alpha = np.dstack([PICTURE, np.full((30, 40), 9, dtype=np.uint8)])
    forms = [PICTURE, PICTURE / 255, np.moveaxis(PICTURE, -1, 0), torch.from_numpy(PICTURE), alpha]
    for form in [*forms, PICTURE.astype(int), PICTURE.astype(np.float32)]:
        found = explainer.explain_image(form)
        np.testing.assert_allclose(found.scores, explained.scores, rtol=1e-6)
    shades = explainer.explain_image(PICTURE[..., 0])
    flat = explainer.explain_image(Image.fromarray(PICTURE[..., 0]))
    np.testing.assert_allclose(shades.scores, flat.scores, rtol=1e-9)


def test_lists_keep_their_order_and_batches_equal_singles(explainer, explained):
    others = [PICTURE, PICTURE[::-1], PICTURE[:20, :17], Image.fromarray(PICTURE[:, ::-1])]
    together = explainer.explain_image(others)
    assert isinstance(together, list)
    np.testing.assert_allclose(together[0].scores, explained.scores, rtol=1e-6)
    alone = [
        Explainer(explainer.model, explainer.tokenizer, tensor="af", batch_size=1).explain_image(
            other
        )
        for other in others
    ]
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_allclose(first.scores, second.scores, rtol=1e-6)
    stacked = explainer.explain_image(np.stack([PICTURE, PICTURE[::-1]]))
    assert [
        np.allclose(a.scores, b.scores) for a, b in zip(stacked, together[:2], strict=True)
    ] == [True, True]
    assert explainer.explain_image([]) == []


def test_targets(explainer):
    first, second = explainer.explain_image([PICTURE, PICTURE], target=[0, "LABEL_1"])
    assert (first.target.index, second.target.index) == (0, 1)
    with pytest.raises(InputError, match="LABEL_0, LABEL_1, LABEL_2"):
        explainer.explain_image(PICTURE, target="cat")
    with pytest.raises(InputError, match="2 targets for 1 inputs"):
        explainer.explain_image(PICTURE, target=[0, 1])


def test_without_a_processor(explainer):
    bare = Explainer(explainer.model, tensor="af")
    pixels = image_processor()(images=PICTURE, return_tensors="np")["pixel_values"]
    found = bare.explain_image(pixels[0])
    same = bare.explain_inputs(pixel_values=pixels)
    np.testing.assert_allclose(found.scores, same.scores, rtol=1e-9)
    assert found.image.shape == (12, 8, 3)
    assert (found.image.min(), found.image.max()) == (0, 255)
    with pytest.raises(InputError, match="no image processor"):
        bare.explain_image(Image.fromarray(PICTURE))
    for wrong in (PICTURE, PICTURE[..., 0] / 255, pixels[0].astype(int)):
        with pytest.raises(InputError, match=r"array of floats \(3, height, width\)"):
            bare.explain_image(wrong)
    with pytest.raises(InputError, match="different shapes at once"):
        bare.explain_image([pixels[0], pixels[0][:, :, :4]])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("cat.png", r"open it first: PIL\.Image\.open"),
        (None, "image 0 must be a PIL image or an array"),
        ({"a": 1}, "image 0 must be a PIL image or an array"),
        (np.zeros((0, 4, 3)), "image 0 must be a PIL image or an array"),
        (np.zeros((4, 4, 5)), r"shape \(height, width, 3\), not \(4, 4, 5\)"),
        (np.zeros(7), r"shape \(height, width, 3\), not \(7,\)"),
        (np.full((4, 4, 3), np.nan), "not finite"),
        (np.full((4, 4, 3), -1.0), "values from -1 to -1"),
        (np.full((4, 4, 3), 256), "values from 256 to 256"),
        ([PICTURE, "x"], "image 1 is a str"),
    ],
)
def test_what_is_no_image(explainer, image, message):
    with pytest.raises(InputError, match=message):
        explainer.explain_image(image)


def test_texts_and_images_are_not_mixed_up(explainer, tiny_bert, tiny_tokenizer):
    with pytest.raises(UnsupportedError, match="reads images, not text"):
        explainer("a cat")
    with pytest.raises(UnsupportedError, match="generates no text"):
        explainer.explain_generation("a cat")
    for other in (Explainer(tiny_bert, tiny_tokenizer), Explainer(*decoder())):
        with pytest.raises(UnsupportedError, match="reads text, not images"):
            other.explain_image(PICTURE)


def test_a_processor_that_lacks_a_package(explainer):
    def processor(images: Any, return_tensors: str) -> Any:
        raise ImportError("\nSomeProcessor requires the torchvision library\nmore")

    lacking = Explainer(explainer.model, processor)
    with pytest.raises(MissingDependencyError, match=r"requires the torchvision.*pip install"):
        lacking.explain_image(PICTURE)


def test_progress(explainer, capsys):
    explainer.explain_image([PICTURE, PICTURE], progress=True)
    assert "2/2" in capsys.readouterr().err


def test_what_the_model_saw(explained):
    resized = np.asarray(Image.fromarray(PICTURE).resize((8, 12), Image.Resampling.BILINEAR))
    assert explained.image.dtype == np.uint8
    assert np.abs(explained.image.astype(int) - resized).max() <= 1
    grey_pixels = np.full((1, 4, 4), 0.3)
    assert seen(grey_pixels, None).shape == (4, 4, 3)
    assert not seen(grey_pixels, None).any()


def test_a_folder_of_an_image_model(tmp_path, explained):
    image_model().save_pretrained(tmp_path)
    image_processor().save_pretrained(tmp_path)
    loaded = Explainer.from_pretrained(tmp_path, tensor="af")
    found = loaded.explain_image(PICTURE)
    np.testing.assert_allclose(found.scores, explained.scores, rtol=1e-3)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="image processor in the folder"):
        Explainer.from_pretrained(tmp_path)


def test_storage_keeps_the_grid_but_not_the_picture(explained):
    back = Attribution.from_json(explained.to_json())
    assert back.grid == (3, 2)
    assert back.image is None
    np.testing.assert_array_equal(back.patch_scores, explained.patch_scores)
    with pytest.raises(InputError, match="no image"):
        replace(back, grid=None).patch_scores  # noqa: B018


# --- pictures --------------------------------------------------------------------------------
def test_plot_lies_over_the_picture(explained):
    ax = explained.plot()
    below, above = ax.get_images()
    assert below.get_array().shape == (12, 8)
    assert above.get_extent() == below.get_extent()
    assert above.get_array().max() <= explained.patch_scores.max() + 1e-12
    assert len(ax.figure.axes) == 2  # with a colour bar
    assert ax.get_title(loc="left").startswith(explained.target.label)
    other = explained.plot(image=Image.fromarray(PICTURE))
    assert other.get_images()[0].get_array().shape == (30, 40)
    ax.figure.canvas.draw()
    bare = replace(explained, image=None).plot()
    np.testing.assert_array_equal(bare.get_images()[0].get_array(), explained.patch_scores)
    for wrong in (np.zeros(3), "x"):
        with pytest.raises(InputError, match="image must be"):
            explained.plot(image=wrong)
    mpl.pyplot.close("all")


def test_plot_of_signed_patches_is_centred(explained):
    signed = replace(explained, scores=explained.scores * [1, -1, 1, 1, -1, 1, 1])
    above = plot_image(signed).get_images()[1]
    assert above.norm.vmin == -above.norm.vmax
    colours = above.get_cmap()([0.0, 0.5, 1.0])
    assert colours[1][3] < 0.01  # no score, no colour over the picture
    assert colours[0][0] > colours[0][2]  # against: orange
    assert colours[2][0] < colours[2][2]  # for: blue
    mpl.pyplot.close("all")


def test_text_has_no_picture(explained):
    with pytest.raises(InputError, match="no image"):
        replace(explained, grid=None).plot(image=PICTURE)


def test_terminal_shows_the_grid(explained):
    shown = str(explained).splitlines()
    levels = np.round(10 * patch_levels(explained)).astype(int)
    grid = [[int(part) for part in line.split()] for line in shown[1:4]]
    np.testing.assert_array_equal(grid, levels)
    assert levels.max() == 10
    assert any(line.startswith("patch") for line in shown)


def test_page_shows_the_grid_over_the_picture(explained):
    page = to_html(explained)
    assert page.count("<rect ") == 6
    assert "data:image/png;base64," in page
    assert "row 2, column 1" in page
    assert "data:image" not in to_html(replace(explained, image=None))


def test_png_is_a_picture():
    lightness = np.random.default_rng(0).integers(0, 256, (3, 5), dtype=np.uint8)
    data = png(lightness)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (5, 3)
    length = struct.unpack(">I", data[33:37])[0]
    lines = np.frombuffer(zlib.decompress(data[41 : 41 + length]), dtype=np.uint8).reshape(3, 6)
    np.testing.assert_array_equal(lines[:, 1:], lightness)
    from io import BytesIO

    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(data))), lightness)
    assert grey(np.full((2, 2, 3), 255, dtype=np.uint8)) == pytest.approx(1.0)
    assert grey(np.zeros((2, 2, 3))) == pytest.approx(0.3)
