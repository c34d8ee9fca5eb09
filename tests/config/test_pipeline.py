import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import picture
from pydantic import BaseModel

from nst_pipeline.config import documents
from nst_pipeline.config.hooks import HookSettings
from nst_pipeline.config.pipeline import Config, Limits, load, parse
from nst_pipeline.config.recipe import Recipe
from nst_pipeline.config.settings import OutputSettings, StyleSettings
from nst_pipeline.errors import ConfigError

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "nst_pipeline" / "config" / "pipeline.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture().save(tmp_path / "ink.png")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def test_several_mistakes_are_all_reported_with_their_lines_and_keys(folder: Path) -> None:
    reported = problems(
        folder,
        "inbx: here\n"
        "styles:\n"
        "  ink: ink.png\n"
        "  oil: nothing.jpg\n"
        "  pen: {image: ink.png, recipe: {iteration: 3}}\n"
        "recipe:\n"
        "  name: gaty\n"
        "  style_layers: [relu1_9]\n"
        "  size: 4\n"
        "output: {format: pnh}\n"
        "limits:\n"
        "  max_bytes: 1\n"
        "  max_bytes: many\n"
        "device: gpu\n",
    )
    expected = [
        "1: inbx: unknown key; did you mean 'inbox'?",
        f"4: styles.oil.image: {folder}/nothing.jpg: no such file",
        "5: styles.pen.recipe.iteration: unknown key; did you mean 'iterations'?",
        "7: recipe.name: is 'gaty'; should be 'default', 'gatys', 'painterly', 'sketch', "
        "'photo-colors' or 'tutorial'",
        "8: recipe.style_layers: unknown layer 'relu1_9'; did you mean 'relu1_2'?",
        "9: recipe.size: is 4; input should be greater than or equal to 32, "
        "or should be 'original'",
        "10: output.format: is 'pnh'; should be 'png', 'jpeg', 'webp', 'tiff' or 'avif'",
        "13: limits.max_bytes: stands twice",
        "13: limits.max_bytes: is 'many'; input should be a valid integer, unable to parse string "
        "as an integer",
        "14: device: 'gpu' is no device; give auto, cpu, cuda, cuda:N, xpu, xpu:N or mps",
    ]
    assert sorted(reported) == sorted(expected)


def test_what_is_wrong_with_width_and_height_is_told_at_its_key(folder: Path) -> None:
    sizes = ("{width: 4, heigth: 3}", "{width: big}", "{}", "large")
    styles = "".join(f"  s{n}: {{image: ink.png, recipe: {{size: {s}}}}}\n"
                     for n, s in enumerate(sizes))  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        load(write(folder, f"styles:\n{styles}"))
    told = [problem.partition(": ")[2] for problem in raised.value.problems]
    assert sorted(told) == [
        "styles.s0.recipe.size.heigth: unknown key; did you mean 'height'?",
        "styles.s1.recipe.size.width: is 'big'; input should be a valid integer, unable to parse "
        "string as an integer",
        "styles.s2.recipe.size: needs a width, a height or both",
        "styles.s3.recipe.size: is 'large'; input should be a valid integer, unable to parse "
        "string as an integer, or should be 'original'",
    ]


def test_relative_paths_are_relative_to_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder, "inbox: in\nweights: w.pth\nstyles: {ink: ink.png}\n")
    monkeypatch.chdir("/")
    config = load(path)
    assert config.inbox == folder / "in"
    assert config.outbox == folder / "outbox"
    assert config.styles["ink"].image == folder / "ink.png"
    assert config.weights == str(folder / "w.pth")


def test_a_section_whose_keys_are_all_commented_out_is_as_if_it_were_not_there(
    folder: Path,
) -> None:
    empty = load(
        write(
            folder, "recipe:\noutput:\nlimits:\nwatch:\nstyles: {ink: {image: ink.png, recipe: }}"
        )
    )
    assert empty == load(write(folder, "styles: {ink: ink.png}"))


def test_words_and_numbers_of_yaml_1_1_are_what_people_mean(folder: Path) -> None:
    config = load(write(folder, "styles: {yes: ink.png, no: ink.png}\nrecipe: {size: 0512}"))
    assert list(config.styles) == ["yes", "no"] and config.style_recipe("no").size == 512


def test_a_recipe_may_be_just_a_name(folder: Path) -> None:
    config = load(
        write(folder, "recipe: tutorial\nstyles: {ink: {image: ink.png, recipe: default}}")
    )
    assert config.recipe.name == "tutorial"
    assert config.style_recipe("ink") == Recipe()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no settings"),
        ("styles: [", "not YAML"),
        ("inbox: in", "1: styles: missing"),
        ("styles: {}", "1: styles: is {}; dictionary should have at least 1 item"),
        ("styles: {a/b: ink.png}", "cannot be a style's name"),
        ("inbox: .\nstyles: {ink: ink.png}", "lies in the inbox"),
        ("styles: {ink: ink.png}\noutput: {name: x}", r"put {content} into it"),
        ("styles: {ink: ink.png}\noutput: {name: '{contents}'}", r"unknown field {contents}"),
        ("styles: {ink: ink.png}\noutput: {name: '../{content}'}", "must stay in the outbox"),
        ("styles: {ink: ink.png}\noutput: {name: '{content'}", "2: output.name: expected '}'"),
        ("styles: {a: ink.png, b: ink.png}\noutput: {name: '{content}'}", "put {style} into it"),
        (
            "styles: {ink: ink.png}\noutput: {format: webp, bit_depth: 16}",
            "2: output.bit_depth: 16 bits do not fit into webp; set format to png or tiff",
        ),
        ("styles: {ink: ink.png}\ninbox: ~nobody-at-all/in", "2: inbox: ~.*is nobody's home"),
        ("styles: {ink: ~nobody-at-all/a.png}", "1: styles.ink.image: ~.*is nobody's home"),
        ("styles: {ink: " + "x" * 300 + ".png}", "1: styles.ink.image: .*xx.png: no such file"),
        ("styles: {ink: ink.png}\nweights: ~nobody-at-all/w.pth", "2: weights: ~.*nobody's home"),
        ("styles: {ink: ink.png}\nhttp: nowhere", "2: http.address: 'nowhere' is no address"),
        (
            "styles: {ink: ink.png}\nmetrics: {http: 9464}",
            r"2: metrics\.http: is a key of its own now: write `http: 9464` at the left margin",
        ),
        ("styles: {ink: ink.png}\noutput: {subsampling: 4:1:1}", "is '4:1:1'; should be '4:4:4'"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(folder: Path, text: str, complaint: str) -> None:
    assert re.search(complaint, "\n".join(problems(folder, text)))


def test_on_and_off_may_be_written_without_quotes(folder: Path) -> None:
    text = "styles: {ink: ink.png}\ntile: on\nwatch: {polling: off}"
    config = load(write(folder, text))
    assert (config.tile, config.watch.polling) == ("on", "off")


def test_a_style_is_an_image_a_blend_or_regions(folder: Path) -> None:
    picture().save(folder / "oil.png")
    ink, oil = folder / "ink.png", folder / "oil.png"
    config = load(
        write(
            folder,
            "styles:\n"
            "  plain: ink.png\n"
            "  also: {image: ink.png}\n"
            "  blend: {images: {ink.png: 3, oil.png: 1}}\n"
            "  equal: {images: [ink.png, oil.png]}\n"
            "  land: {regions: {Sky: ink.png, ground: {images: [ink.png, oil.png]}}}\n",
        )
    )
    sources = {name: style.sources() for name, style in config.styles.items()}
    assert sources == {
        "plain": {"": ((ink, 1.0),)},
        "also": {"": ((ink, 1.0),)},
        "blend": {"": ((ink, 0.75), (oil, 0.25))},
        "equal": {"": ((ink, 0.5), (oil, 0.5))},
        "land": {"sky": ((ink, 1.0),), "ground": ((ink, 0.5), (oil, 0.5))},
    }
    assert config.styles["land"].paths() == (ink, oil)


def test_mistakes_in_styles_of_several_images_are_reported_with_their_lines(folder: Path) -> None:
    reported = problems(
        folder,
        "styles:\n"
        "  none: {recipe: gatys}\n"
        "  two:\n"
        "    image: ink.png\n"
        "    images: [ink.png]\n"
        "  gone:\n"
        "    images:\n"
        "      ink.png: 1\n"
        "      nothing.png: -2\n"
        "  zero:\n"
        "    images:\n"
        "      ink.png: 0\n"
        "  empty: {images: {}}\n"
        "  land:\n"
        "    regions:\n"
        "      a.b: ink.png\n"
        "      sky:\n"
        "        imags: [ink.png]\n",
    )
    expected = [
        "2: styles.none: needs exactly one of image, images, regions, folder; has none",
        "3: styles.two: needs exactly one of image, images, regions, folder; has image and images",
        f"9: styles.gone.images.nothing.png: {folder}/nothing.png: no such file",
        "9: styles.gone.images.nothing.png: is -2; input should be greater than 0",
        "12: styles.zero.images.ink.png: is 0; input should be greater than 0",
        "13: styles.empty.images: is {}; value should have at least 1 item after validation, not 0",
        "16: styles.land.regions.a.b: 'a.b' cannot be a region's name: it is part of "
        "photo.mask.NAME.png",
        "18: styles.land.regions.sky.imags: unknown key; did you mean 'images'?",
    ]
    assert sorted(reported) == sorted(expected)


@pytest.mark.parametrize("written", ["4:2:0", "'4:2:0'"])
def test_subsampling_is_no_number_of_base_60(folder: Path, written: str) -> None:
    config = load(write(folder, f"styles: {{ink: ink.png}}\noutput: {{subsampling: {written}}}"))
    assert config.output.subsampling == "4:2:0"


def test_a_missing_file_is_reported_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nst-pipeline init"):
        load(tmp_path / "pipeline.yaml")


def test_the_sample_pipeline_is_the_template_with_the_paths_of_the_samples() -> None:
    template = TEMPLATE.read_text()
    sample = template.replace("inbox: inbox     ", "inbox: nst_pipeline/samples/contents")
    sample = sample.replace("styles/", "nst_pipeline/samples/styles/")
    sample = sample.replace("$schema=", "$schema=nst_pipeline/config/")
    assert (ROOT / "pipeline.yaml").read_text() == sample
    assert load(ROOT / "pipeline.yaml").inbox == ROOT / "nst_pipeline" / "samples" / "contents"


def test_the_template_shows_every_key_there_is() -> None:
    shown = set(re.findall(r"(?:^[ #]*|[{,] *)(\w+):", TEMPLATE.read_text(), re.MULTILINE))
    models: list[type[BaseModel]] = [Config, StyleSettings, OutputSettings, Limits, Recipe]
    models.append(HookSettings)
    missing = {field for model in models for field in model.model_fields} - shown
    assert not missing


def test_the_defaults_that_the_template_shows_are_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "styles").mkdir()
    for name in ("brushwork", "mosaic", "woodcut"):
        picture().save(tmp_path / "styles" / f"{name}.jpg")
    text = TEMPLATE.read_text()
    # Uncomment every `# key: value`, which must then still be the same configuration.
    uncommented = re.sub(r"^( *)# ?( *)(\w+: *\S|\w+:$)", r"\1\2\3", text, flags=re.MULTILINE)
    uncommented = re.sub(r"^# +(\"\*)", r"  \1", uncommented, flags=re.MULTILINE)
    assert uncommented != text
    before = load(write(tmp_path, text))
    after = load(write(tmp_path, uncommented))
    assert yaml.safe_load(uncommented).keys() == Config.model_fields.keys()
    names = before.styles
    assert before.model_dump(exclude={"recipe"}) == after.model_dump(exclude={"recipe"})
    for name in names:
        shown, real = (c.style_recipe(name).model_dump() for c in (after, before))
        assert shown == real


KEY = re.compile(r"( *)# ?( *)(\w+): *(\S.*)?")
"""A line with a commented key; its indentation, and that behind the sign."""


def commented_keys(text: str) -> Iterator[tuple[str, str]]:
    """Give the name of each commented key, and the text with that key and its sections alone."""
    rows = text.split("\n")
    sections: list[tuple[int, int, str]] = []
    for number, row in enumerate(rows):
        match = KEY.fullmatch(row)
        if not match:
            continue
        depth = len(match[1]) + len(match[2])
        sections = [one for one in sections if one[0] < depth and one[0] >= len(match[1])]
        sections.append((depth, number, match[3]))
        wanted = {line for _, line, _ in sections}
        while number + 1 < len(rows) and re.match(r"# +\"", rows[number + 1]):
            number += 1
            wanted.add(number)
        changed = [re.sub("# ?", "", r, count=1) if n in wanted else r for n, r in enumerate(rows)]
        yield ".".join(name for _, _, name in sections), "\n".join(changed)


def keys_in(value: object) -> set[str]:
    """Return the keys of a mapping, and of those in it."""
    return set(value).union(*map(keys_in, value.values())) if isinstance(value, dict) else set()


SAMPLE = (ROOT / "pipeline.yaml").read_text()
COMMENTED = dict(commented_keys(SAMPLE))


def test_most_keys_are_shown_with_their_defaults() -> None:
    assert len(COMMENTED) > 50
    assert {"device", "ignore", "scales", "output", "output.name", "watch.urgent"} <= set(COMMENTED)


@pytest.mark.parametrize("key", COMMENTED)
def test_a_commented_key_shows_the_default_that_is_in_force(key: str) -> None:
    def settings(text: str) -> tuple[dict[str, object], list[Recipe]]:
        config = parse(documents.parse(text)[1], ROOT)
        recipes = [config.style_recipe(name) for name in config.styles]
        return config.model_dump(exclude={"recipe"}), recipes

    assert set(key.split(".")) <= keys_in(documents.parse(COMMENTED[key])[1])
    assert settings(COMMENTED[key]) == settings(SAMPLE)


def test_variables_and_homes_in_paths_are_as_in_a_shell(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICTURES", str(folder / "pictures"))
    monkeypatch.setenv("NAME", "ink")
    monkeypatch.setenv("HOME", str(folder / "home"))
    (folder / "a$b.png").write_bytes((folder / "ink.png").read_bytes())
    config = load(
        write(
            folder,
            "inbox: $PICTURES/in\n"
            "outbox: ~/out\n"
            "weights: ${PICTURES}/w.pth\n"
            "metrics: {textfile: '$PICTURES-$NAME.prom'}\n"
            "styles:\n"
            "  ink: ${NAME}.png\n"
            "  blend: {images: [$NAME.png, a$$b.png]}\n",
        )
    )
    assert config.inbox == folder / "pictures" / "in"
    assert config.outbox == folder / "home" / "out"
    assert config.weights == str(folder / "pictures" / "w.pth")
    assert config.metrics.textfile == folder / "pictures-ink.prom"
    assert config.styles["ink"].paths() == (folder / "ink.png",)
    assert config.styles["blend"].paths() == (folder / "ink.png", folder / "a$b.png")


def test_a_variable_that_is_not_set_is_told_with_its_line_and_its_cure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.setenv("EMPTY", "")
    text = "styles: {ink: ink.png}\ninbox: $NOWHERE/in\noutbox: a/${EMPTY}\nstate: ${no-name}"
    cure = "is not set; set it, or write $$ for a $"
    assert problems(folder, text) == [
        f"2: inbox: $NOWHERE/in: the variable 'NOWHERE' {cure}",
        f"3: outbox: a/${{EMPTY}}: the variable 'EMPTY' {cure}",
        f"4: state: ${{no-name}}: the variable 'no-name' {cure}",
    ]


def test_dollars_that_name_no_variable_are_a_part_of_the_path(folder: Path) -> None:
    config = load(write(folder, "styles: {ink: ink.png}\ninbox: 5$/$\noutbox: $$HOME\nstate: $5"))
    names = [path.relative_to(folder) for path in (config.inbox, config.outbox, config.state)]
    assert names == [Path("5$/$"), Path("$HOME"), Path("$5")]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a home")
def test_who_has_no_home_is_told_so_for_a_path_below_it(anybodys_folder: Path) -> None:
    path = write(anybodys_folder, "styles: {ink: ink.png}\ninbox: ~/in\n")
    code = (
        "import os, pathlib, sys; from nst_pipeline.config.pipeline import load; os.setuid(54321)\n"
        "load(pathlib.Path(sys.argv[1]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=environment, capture_output=True, text=True
    )
    assert f"{path}:2: inbox: ~/in: ~ is nobody's home; write it in full" in done.stderr


def test_keys_that_begin_with_x_hold_what_aliases_and_merge_keys_use(folder: Path) -> None:
    config = load(
        write(
            folder,
            "x-soft: &soft {style_weight: 5, tv_weight: 3}\n"
            "x-notes: [anything, {goes: here}]\n"
            "x-long: &long {iterations: 77}\n"
            "recipe: *soft\n"
            "styles:\n"
            "  ink: {image: ink.png, recipe: {<<: [*soft, *long], tv_weight: 4}}\n",
        )
    )
    recipe = config.style_recipe("ink")
    assert (recipe.style_weight, recipe.tv_weight, recipe.iterations) == (5, 4, 77)
    assert config.recipe.tv_weight == 3


def test_mistakes_in_what_is_merged_are_told_where_they_stand(folder: Path) -> None:
    text = (
        "x-soft: &soft\n"
        "  style_weight: -5\n"
        "  tv_weight: 3\n"
        "styles:\n"
        "  ink:\n"
        "    image: ink.png\n"
        "    recipe:\n"
        "      <<: *soft\n"
        "      tv_weight: 1\n"
        "      tv_weight: 2\n"
    )
    assert problems(folder, text) == [
        "2: styles.ink.recipe.style_weight: is -5; input should be greater than or equal to 0",
        "10: styles.ink.recipe.tv_weight: stands twice",
    ]


def test_a_cluster_takes_no_device_that_is_one_of_many(tmp_path: Path) -> None:
    data = {"styles": {"s": "/etc/passwd"}, "device": "cuda:1"}
    assert parse(data, tmp_path).device == "cuda:1"
    with pytest.raises(ValueError, match=r"'cuda:1'.*CUDA_VISIBLE_DEVICES.*cluster\.workers"):
        parse(data | {"cluster": {"address": "auto"}}, tmp_path)
    assert parse(data | {"device": "cuda", "cluster": {"address": "auto"}}, tmp_path)
