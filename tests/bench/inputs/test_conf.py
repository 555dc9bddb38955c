"""Every file in conf/ composes and makes sense; a typo or a wrong type is an error, by name."""

import pytest
from harness import CONF, composed
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf, open_dict

from bench.errors import UserError
from bench.inputs.checks import choose_alpha, validate
from fskernel.conversion.convert import DEFAULTS, FITTED, PAPER

FILES = sorted(CONF.glob("*/*.yaml"))


def test_there_is_a_file_for_each_group():
    groups = {path.parent.name for path in FILES}
    assert groups == {"model", "neuron", "data", "baseline", "backend", "logger", "experiment"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_yaml_composes(path):
    cfg = composed(f"{path.parent.name}={path.stem}", return_hydra_config=True)
    if path.parent.name != "experiment":
        assert cfg.hydra.runtime.choices[path.parent.name] == path.stem
    with open_dict(cfg):
        del cfg.hydra
    validate(cfg)


def test_the_default_is_the_main_job():
    cfg = composed()
    assert cfg.model["_target_"] == "torchvision.models.resnet50"
    assert (cfg.K, cfg.data.kind, cfg.baseline.T) == (8, "samples", 550)
    assert cfg.baseline.simulate == "all", "nothing is extrapolated unless asked"


def test_k_at_top_level_wins_over_the_neuron():
    assert composed("neuron=paper").K == 10
    assert composed("neuron=paper", "K=6").K == 6
    assert composed("K=10").neuron.alpha == "max"


def test_the_root_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("FSKERNEL_DATA", "/somewhere")
    assert composed("data=imagefolder").data.root == "/somewhere"
    assert composed("data=wnid_files", "data.root=/else").data.root == "/else"
    assert composed("data=samples").data.root is None


@pytest.mark.parametrize(
    "asked, found",
    [
        ("csv", {"csv"}),
        ("none", set()),
        ("wandb", {"wandb"}),
        ("[]", set()),
        ("[none]", set()),
        ("[csv,none]", {"csv"}),
        ("[wandb,csv]", {"csv", "wandb"}),
        ("[csv,tensorboard,wandb]", {"csv", "tensorboard", "wandb"}),
    ],
)
def test_several_loggers_are_a_list(asked, found):
    logger = composed(f"logger={asked}", "logger.mode=online", "logger.project=p").logger
    assert {name for name in ("csv", "tensorboard", "wandb") if logger[name]} == found
    assert (logger.mode, logger.project) == ("online", "p")


@pytest.mark.parametrize(
    "typo",
    ["k=3", "model.weigths=auto", "data.rot=/x", "baseline.t=5", "logger.mod=a", "modl=resnet50"],
)
def test_a_typo_is_an_error(typo):
    with pytest.raises(ConfigCompositionException, match=typo.partition("=")[0].split(".")[-1]):
        composed(typo)


@pytest.mark.parametrize(
    "typo,meant",
    [("+foo=3", "foo"), ("+neuron.aplha=3", "neuron.alpha"), ("+model.weigths=1", "model.weights")],
)
def test_a_typo_that_is_added_is_an_error_too(typo, meant):
    with pytest.raises(UserError, match=meant):
        validate(composed(typo))


@pytest.mark.parametrize(
    "group", ["model=resnet5", "experiment=smok", "data=imagefoldr", "logger=mlflow"]
)
def test_an_unknown_option_is_an_error_that_lists_the_others(group):
    with pytest.raises(MissingConfigException, match="Available options"):
        composed(group)


@pytest.mark.parametrize("wrong", ["K=ten", "batch=1.5", "check=perhaps", "images=[1]", "K=null"])
def test_a_wrong_type_is_an_error(wrong):
    with pytest.raises(ConfigCompositionException):
        composed(wrong)


def test_a_broken_override_is_an_error():
    with pytest.raises(OverrideParseException):
        composed("K")


@pytest.mark.parametrize("asked", ["every=3", "curve=true", "burn_in=2"])
def test_an_extrapolation_is_not_asked_for_answers(asked):
    with pytest.raises(UserError, match=f"baseline.{asked}: .*baseline.simulate=all"):
        validate(composed(f"baseline.{asked}", "baseline.simulate=transient"))


@pytest.mark.parametrize(
    "override, names",
    [
        ("K=0", "K=0"),
        ("K=16", "K=16"),
        ("seed=-1", "seed=-1"),
        ("seed=4294967296", "seed"),
        ("batch=0", "batch=0"),
        ("threads=0", "threads=0"),
        ("images=0", "images=0"),
        ("calibration=0", "calibration=0"),
        ("rounds=0", "rounds=0"),
        ("warmup=-1", "warmup=-1"),
        ("fidelity=-1", "fidelity=-1"),
        ("neuron.alpha=0", "neuron.alpha=0"),
        ("neuron.alpha=-2.5", "neuron.alpha=-2.5"),
        ("neuron.alpha=.inf", "neuron.alpha"),
        ("neuron.alpha=median", "neuron.alpha=median"),
        ("neuron.alpha='percentile:101'", "neuron.alpha=percentile:101"),
        ("neuron.alpha='percentile:x'", "neuron.alpha=percentile:x"),
        ("neuron.alpha=true", "neuron.alpha=True"),
        ("neuron.alpha='top:0'", "neuron.alpha=top:0"),
        ("neuron.alpha='top:inf'", "neuron.alpha=top:inf"),
        ("neuron.bottleneck=none", "neuron.bottleneck=none"),
        ("threads=1000000", "threads=1000000: this process may use"),
        ("data.calibrate_on=all", "data.calibrate_on=all"),
        ("data.calibrate_on=train", "data.calibrate_on=train: data=samples has no training"),
        ("neuron.rounding=up", "neuron.rounding=up"),
        ("neuron.weight_bits=4", "neuron.weight_bits=4"),
        ("backend.device=gpu", "choose cpu, cuda"),
        ("backend.plane_bits=3", "backend.plane_bits=3"),
        ("figures=gif", "figures=gif: choose one of True, False, png, svg, pdf"),
        ("baseline.T=0", "baseline.T=0"),
        ("baseline.images=0", "baseline.images=0"),
        ("baseline.percentile=0", "baseline.percentile=0"),
        ("baseline.simulate=some", "baseline.simulate=some: choose one of all, transient"),
        ("baseline.normalise=mean", "baseline.normalise=mean: choose one of percentile, max"),
        ("baseline.reset=half", "baseline.reset=half: choose one of subtract, zero"),
        ("baseline.input=rate", "baseline.input=rate: choose one of analog, poisson"),
        ("baseline.balanced_for=0", "baseline.balanced_for=0"),
        ("baseline.balanced_for=257", "baseline.balanced_for=257: must be at most 256"),
        ("baseline.burn_in=-1", "baseline.burn_in=-1"),
        ("baseline.simulator=gpu", "baseline.simulator=gpu"),
        ("baseline.path=fast", "baseline.path=fast"),
        ("baseline.burn_in=550", "baseline.burn_in=550: of baseline.T=550 steps none is left"),
        ("energy_rounds=-1", "energy_rounds=-1"),
        ("logger.mode=onlin", "logger.mode=onlin"),
        ("model.input.resize=100", "model.input.resize=100"),
        ("model.input.std=[1.0]", "model.input.mean"),
        ("model.input.std=[1.0,0.0,1.0]", "positive std"),
        ("data.root=/tmp", "data.root=/tmp"),
    ],
)
def test_a_senseless_value_is_refused_by_name(override, names):
    cfg = composed()
    key, _, value = override.partition("=")
    OmegaConf.update(cfg, key, OmegaConf.create(f"x: {value}").x)
    with pytest.raises(UserError, match=names.replace("[", "\\[").replace(".", "\\.")):
        validate(cfg)


@pytest.mark.parametrize(
    "simulator, override, message",
    [
        ("torch", "baseline.path=events", "baseline.path=events: plain torch has no paths"),
        ("fused", "baseline.reset=zero", "baseline.reset='zero': the kernels have reset="),
        ("fused", "baseline.input=poisson", "baseline.input='poisson': the kernels have input="),
    ],
)
def test_a_simulator_without_what_is_asked_of_it_is_refused(simulator, override, message):
    with pytest.raises(UserError, match=message):
        validate(composed(f"baseline.simulator={simulator}", override))


@pytest.mark.parametrize("alpha", ["max", "'percentile:99.9'", "25", "6.02", "'top:6'"])
def test_good_alphas_pass(alpha):
    cfg = composed()
    cfg.neuron.alpha = OmegaConf.create(f"x: {alpha}").x
    validate(cfg)


@pytest.mark.parametrize("K", [1, 8, 15])
def test_the_top_word_stands_for_what_alpha_says(K):
    assert choose_alpha("top:6", K) * (2**K - 1) / 2**K == pytest.approx(6.0, rel=1e-15)
    assert choose_alpha(2.5, K) == 2.5 and choose_alpha("max", K) == "max"


@pytest.mark.parametrize(
    "option, preset", [("default", DEFAULTS), ("paper", PAPER), ("fitted", FITTED)]
)
def test_the_neurons_of_conf_are_those_of_convert(option, preset):
    neuron = composed(f"neuron={option}").neuron
    assert {key: neuron[key] for key in preset} == preset
