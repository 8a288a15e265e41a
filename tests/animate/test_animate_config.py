"""The config of an animation: what it takes, what it refuses, and that it survives being written down."""

from __future__ import annotations

import dataclasses
import json

import pytest

from animate.config import (
    METHODS,
    PRESETS,
    AnimateConfig,
    DeformationConfig,
    DynamicConfig,
    NerfConfig,
    ReconstructionConfig,
    RefinementConfig,
    StaticConfig,
    SubjectConfig,
    from_dict,
    preset,
    to_dict,
)
from manifests.errors import InputError

KINDS = (
    AnimateConfig,
    DeformationConfig,
    DynamicConfig,
    NerfConfig,
    ReconstructionConfig,
    RefinementConfig,
    StaticConfig,
    SubjectConfig,
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json(name, method):
    """Oracle: equality after a way through JSON text."""
    config = preset(name, method)
    assert config.method == method
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_released_numbers_are_the_released_ones():
    """Oracle: numbers of Animate3D's released configs and of 3to4D's paper."""
    config = preset("released", "animate3d")
    recon, refine = config.recon, config.refine
    assert (recon.steps, recon.size, recon.curriculum_steps, recon.arap_weight) == (800, 256, 50, 12.0)
    assert (refine.steps, refine.timestep_range, refine.guidance_scale) == (200, (0.02, 0.2), 6.0)
    mesh = preset("released", "animate3d-mesh")
    assert (mesh.recon.arap_weight, mesh.recon.arap_neighbors, mesh.refine.steps) == (4.0, 3, 0)
    dynamic = preset("released", "threetofour").dynamic
    assert (dynamic.steps, dynamic.frames, dynamic.image_to_video, dynamic.masked) == (20_000, 16, True, True)


@pytest.mark.parametrize(("option", "name", "method"), [("preset", "smal", "animate3d"), ("method", "small", "three")])
def test_unknown_preset_and_method_are_told_with_what_there_is(option, name, method):
    """Oracle: the option's name and the list in the error."""
    with pytest.raises(InputError, match=rf"--{option}: found .*expected one of .*;"):
        preset(name, method)
    with pytest.raises(InputError, match="did you mean small"):
        preset("smal")


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_must_be_finite_and_of_its_kind(kind):
    """Oracle: each field in turn is given NaN, infinity, a word, a truth value and nothing; its name is told."""
    good = kind()
    for entry in dataclasses.fields(kind):
        value = getattr(good, entry.name)
        if dataclasses.is_dataclass(value):
            continue
        bad: list = [None, object()]
        if isinstance(value, bool):
            bad += ["yes", 1]
        elif isinstance(value, int):
            bad += ["3", 1.5, True, -1_000_000 if entry.name != "seed" else -1]
        elif isinstance(value, float):
            bad += ["3", float("nan"), float("inf"), True]
        elif isinstance(value, tuple):
            bad += [value[:1], list(value), (float("nan"), *value[1:]), (*value, "3")]
        elif isinstance(value, str):
            bad += [3]
        if entry.name in ("space", "time"):
            bad.remove(value[:1])  # other lengths are fine where both agree
        for wrong in bad:
            with pytest.raises(InputError, match=rf"--([a-z]+\.)?{entry.name.replace('_', '-')}: found "):
                dataclasses.replace(good, **{entry.name: wrong})


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (DeformationConfig, {"space": (8,)}),
        (DeformationConfig, {"space": (), "time": ()}),
        (DeformationConfig, {"space": (1, 2)}),
        (RefinementConfig, {"timestep_range": (0.5, 0.2)}),
        (RefinementConfig, {"elevation_range_deg": (30.0, 0.0)}),
        (DynamicConfig, {"timestep_range": (0.0, 1.5)}),
        (DynamicConfig, {"time_jitter": 1.5}),
        (DynamicConfig, {"viewpoints": "five-views"}),
        (ReconstructionConfig, {"visible_gradient": 1.5}),
        (ReconstructionConfig, {"frames": 1}),
        (NerfConfig, {"learning_rate_time": -1.0}),
        (AnimateConfig, {"background": (0.0, 0.0, 1.5)}),
        (AnimateConfig, {"method": "animate"}),
    ],
)
def test_values_that_do_not_work_are_refused(kind, changes):
    """Oracle: one error that names the option, what was found and what is expected."""
    name = next(iter(changes)).replace("_", "-")
    with pytest.raises(InputError, match=rf"--([a-z]+\.)?{name}: found .*, expected "):
        kind(**changes)


def test_whole_numbers_count_as_fractions():
    """Oracle: equality with the same number written as a fraction."""
    assert ReconstructionConfig(fps=8) == ReconstructionConfig(fps=8.0)
    assert DeformationConfig(space=(8,), time=(4,)).space == (8,)


@pytest.mark.parametrize("where", ["", "recon", "dynamic"])
@pytest.mark.parametrize("change", ["missing", "unknown", "list"])
def test_other_fields_are_refused_by_name(where, change):
    """Oracle: the place and the field's name in the error."""
    values = to_dict(AnimateConfig())
    inside = values[where] if where else values
    name = "steps" if where else "seed"
    if change == "missing":
        del inside[name]
    elif change == "unknown":
        inside["colour"], name = 1, "colour"
    elif where:
        values[where], name = [1], "list"
    else:
        values, name = [1], "list"
    place = f"config.{where}" if where else "config"
    with pytest.raises(InputError, match=rf"^{place}: .*{name}"):
        from_dict(values)
