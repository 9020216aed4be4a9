"""What may be put into accounts: models, numbers, capacities (protocol section 9.2)."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from vivavoce.config import Config, ConfigError, LimitSettings, ModelsSettings, load_config
from vivavoce.gateway.limits import Rules, catalogue_of, is_fine_tuned
from vivavoce.gateway.models.catalogue import shipped
from vivavoce.gateway.models.lifecycle import Refusal
from vivavoce.gateway.resource import Account, DeploymentRecord, Directory, Model, Sku

DAY = dt.date(2026, 1, 10)
"""gpt-4o-realtime-preview 2024-12-17 lives, 2024-10-01 is retired, gpt-4o 2024-05-13 deprecated."""
RETIRED = Model("gpt-4o-realtime-preview", "2024-10-01")
REALTIME = Model("gpt-4o-realtime-preview", "2024-12-17")


def account(name: str, location: str = "eastus2", subscription: str = "s") -> Account:
    return Account(subscription=subscription, resource_group="g", name=name, location=location, tenant="t")


HOME = account("home")


def deployment(
    name: str, model: Model = REALTIME, sku: str = "GlobalStandard", capacity: int = 1, of: Account = HOME
) -> DeploymentRecord:
    return DeploymentRecord(account=of.id, name=name, sku=Sku(sku, capacity), model=model, recipe="r")


def rules(models: ModelsSettings = ModelsSettings(), limits: LimitSettings = LimitSettings()) -> Rules:  # noqa: B008
    return Rules(shipped(), models, limits, lambda: DAY)


def directory(deployments: Iterable[DeploymentRecord] = (), *more: Account) -> Directory:
    return Directory([HOME, *more], deployments=deployments)


def test_accounts_of_a_region() -> None:
    limits = LimitSettings(accounts_per_region=2)
    one, elsewhere, others = account("one", "East US 2"), account("two", "westus"), account("x", subscription="o")
    assert rules(limits=limits).account(one, Directory([HOME])) is None
    full = Directory([HOME, one, elsewhere, others])
    assert rules(limits=limits).account(account("three"), full) == Refusal(
        "QuotaExceeded", "The subscription has 2 accounts in the region 'eastus2', and the maximum is 2."
    )
    assert rules(limits=limits).account(account("ONE"), full) is None, "it is there already"
    assert rules(limits=limits).account(account("three", "westus"), full) is None
    assert rules(limits=limits).account(account("three", subscription="o"), full) is None


def test_thirty_accounts_and_thirty_two_deployments_unless_configured() -> None:
    accounts = [account(f"a{index}") for index in range(29)]
    assert rules().account(account("new"), Directory(accounts)) is None
    assert rules().account(account("new"), directory([], *accounts)) is not None
    there = [deployment(f"d{index}") for index in range(32)]
    assert rules().deployment(deployment("new"), directory(there[:31])) is None
    assert rules().deployment(deployment("D5", capacity=9), directory(there)) is None, "it is there already"
    assert rules().deployment(deployment("new"), directory(there)) == Refusal(
        "QuotaExceeded", "The account has 32 standard deployments, and the maximum is 32."
    )
    provisioned = deployment("new", Model("gpt-4o", "2024-08-06"), "GlobalProvisionedManaged", 15)
    mine = [deployment("of-it", provisioned.model)]
    assert rules().deployment(provisioned, directory([*mine, *there])) is None, "it is no standard deployment"


def test_five_fine_tuned_deployments() -> None:
    tuned = Model("gpt-4o-mini-2024-07-18.ft-0e208cf3", "1")
    foreign = Model("mine", "1", source_account=account("other").id)
    assert is_fine_tuned(tuned)
    assert is_fine_tuned(foreign)
    assert not is_fine_tuned(REALTIME)
    there = [deployment(f"d{index}", tuned, "Standard") for index in range(5)]
    assert rules().deployment(deployment("new", foreign), directory(there[:4])) is None
    assert rules().deployment(deployment("new", foreign), directory(there)) == Refusal(
        "QuotaExceeded", "The account has 5 deployments of fine-tuned models, and the maximum is 5."
    )
    assert rules().deployment(deployment("new"), directory(there)) is None


def test_throughput_units_of_a_deployment() -> None:
    own = Model("own", "1")
    assert rules().deployment(deployment("p", own, "ProvisionedManaged", 100_000), directory()) is None
    refusal = rules().deployment(deployment("p", own, "ProvisionedManaged", 100_001), directory())
    assert refusal is not None
    assert refusal.code == "InvalidCapacity"


def test_a_government_region_grants_so_many_tokens_and_no_more() -> None:
    arizona, annex = account("arizona", "usgovarizona"), account("annex", "USGov Arizona")
    virginia, others = account("virginia", "usgovvirginia"), account("o", "usgovarizona", subscription="o")
    model = Model("gpt-4o", "2024-05-13")
    there = [
        deployment("a", model, "Standard", 100, arizona),
        deployment("b", model, "Standard", 150, annex),
        deployment("c", model, "Standard", 300, virginia),
        deployment("d", model, "Standard", 300, others),
        deployment("e", Model("gpt-4", "1106-Preview"), "Standard", 200, arizona),
        deployment("f", model, "ProvisionedManaged", 500, arizona),
    ]
    found = directory(there, arizona, annex, virginia, others)

    def put(name: str, capacity: int, sku: str = "Standard", of: Account = arizona) -> Refusal | None:
        return rules().deployment(deployment(name, model, sku, capacity, of), found)

    assert put("new", 50) is None
    assert put("a", 150) is None, "what it has itself is free for it"
    assert put("new", 51) == Refusal(
        "InsufficientQuota",
        "The specified capacity '51' of account deployment is bigger than available capacity '50' for UsageName "
        "'Tokens Per Minute (thousands) - gpt-4o'.",
    )
    assert put("new", 500, "ProvisionedManaged") is None
    refusal = put("new", 1, of=virginia)
    assert refusal is not None
    assert "available capacity '0'" in refusal.message
    free = rules(limits=LimitSettings(government_quota=False))
    assert free.deployment(deployment("new", model, "Standard", 5000, arizona), found) is None


@pytest.mark.parametrize(
    ("record", "settings", "code"),
    [
        (
            deployment("d", RETIRED),
            ModelsSettings(),
            "ServiceModelDeprecated",
        ),
        (
            deployment("d", RETIRED),
            ModelsSettings(lifecycle="all"),
            "ServiceModelDeprecated",
        ),
        (deployment("d", RETIRED), ModelsSettings(lifecycle="off"), None),
        (deployment("d", Model("gpt-4o", "2024-05-13")), ModelsSettings(), None),
        (deployment("d", Model("gpt-4o", "1")), ModelsSettings(), "DeploymentModelNotSupported"),
        (deployment("d", Model("gpt-4o", "1")), ModelsSettings(lifecycle="off"), None),
        (deployment("d", sku="Standard"), ModelsSettings(), "InvalidResourceProperties"),
        (deployment("d", sku="Standard"), ModelsSettings(regions=False), None),
        (deployment("d", Model("own", "1"), "Standard"), ModelsSettings(), None),
    ],
)
def test_models_that_are_not_offered(record: DeploymentRecord, settings: ModelsSettings, code: str | None) -> None:
    refusal = rules(settings).deployment(record, directory())
    assert (refusal and refusal.code) == code


def test_an_account_that_is_not_there_is_no_matter_of_limits() -> None:
    assert rules().deployment(deployment("d", Model("gpt-4o", "1"), of=account("gone")), directory()) is None


@pytest.mark.parametrize(
    ("policy", "declared", "ended"),
    [
        ("off", False, False),
        ("stored", False, True),
        ("all", False, True),
        ("off", True, False),
        ("stored", True, False),
        ("all", True, True),
    ],
)
def test_whose_versions_retire(policy: str, declared: bool, ended: bool) -> None:
    record = DeploymentRecord(
        account=HOME.id,
        name="d",
        sku=Sku("GlobalStandard", 1),
        model=RETIRED,
        recipe="r",
        version_upgrade_option="NoAutoUpgrade",
        declared=declared,
    )
    config = load_config(None, environ={})
    found = Rules(shipped(), ModelsSettings(lifecycle=policy), config.limits, lambda: DAY)  # type: ignore[arg-type]
    assert found.has_ended(record) is ended


def test_the_default_version_of_the_day() -> None:
    days = [dt.date(2025, 2, 12)]
    found = Rules(shipped(), day=lambda: days[0])
    assert found.default_version("gpt-4o") == "2024-05-13"
    days[0] = dt.date(2025, 2, 13)
    assert found.default_version("gpt-4o") == "2024-08-06"
    assert found.default_version("own") is None


# ------------------------------------------------------------------------------------------------- configuration

OWN = """
[source.mine]
title = "Ours"
url = "https://example.org"
date = 2026-01-01
evidence = "own"

[[model]]
name = "house-voice"
capabilities = ["realtime"]

[[model.version]]
version = "7"
stage = "GenerallyAvailable"
retirement_not_before = 2030-01-01
source = "mine"
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str, str], Config]:
    def load(text: str, own: str) -> Config:
        (tmp_path / "own.toml").write_text(own, encoding="utf-8")
        (tmp_path / "config.toml").write_text(text, encoding="utf-8")
        return load_config(tmp_path / "config.toml", environ={})

    return load


def test_models_of_ones_own(load: Callable[[str, str], Config], tmp_path: Path) -> None:
    config = load('[models]\ncatalogue = "own.toml"\nlifecycle = "all"\n[limits]\naccounts_per_region = 3', OWN)
    assert config.models.catalogue == str(tmp_path / "own.toml")
    found = Rules.of(config)
    assert found.catalogue.find("house-voice", "7") is not None
    assert found.catalogue.find("gpt-4o", "2024-05-13") is not None
    assert (found.models.lifecycle, found.limits.accounts_per_region) == ("all", 3)


def test_without_an_own_file_it_is_the_one_that_is_shipped(load: Callable[[str, str], Config]) -> None:
    assert catalogue_of(load("", "")) is shipped()


@pytest.mark.parametrize(
    ("text", "own", "said"),
    [
        ('[models]\ncatalogue = "own.toml"', "[[model]]\nname = 1", "models.catalogue: .*own.toml: Expected `str`"),
        ('[models]\ncatalogue = "own.toml"', OWN.replace('"7"', '"7"\ncolour = "red"'), "unknown field `colour`"),
        ('[models]\ncatalogue = "none.toml"', "", r"none\.toml: cannot be read"),
        ('[models]\ncatalogue = "own.toml"', "=", r"own\.toml:1: not valid TOML"),
        ('[models]\nlifecycle = "maybe"', "", r"models\.lifecycle: 'maybe' is not one of off, stored, all"),
        ("[limits]\naccounts_per_region = -1", "", r"limits\.accounts_per_region: "),
        ("[limits]\naccount = 1", "", r"limits\.account: unknown option"),
    ],
)
def test_faults_of_the_configuration(load: Callable[[str, str], Config], text: str, own: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue_of(load(text, own))
    assert re.search(said, str(caught.value))


def test_units_that_a_region_has_left(tmp_path: Path) -> None:
    """What is declared counts as well; it may even be more than there is."""
    path = tmp_path / "c.toml"
    path.write_text('[[capacity]]\nlocation = "East US 2"\nsku = "ProvisionedManaged"\nunits = 100\n')
    found = Rules.of(load_config(path, environ={}))
    other = account("other", subscription="o")

    def left(
        *deployments: DeploymentRecord, sku: str = "ProvisionedManaged", location: str = "eastus2"
    ) -> int | None:
        return found.units_left(sku, location, directory(deployments, other))

    mine = deployment("one", sku="ProvisionedManaged", capacity=60)
    theirs = deployment("two", sku="ProvisionedManaged", capacity=30, of=other)
    assert left() == 100
    assert left(mine, theirs, deployment("standard", capacity=5)) == 10
    assert left(mine, replace(theirs, declared=True, sku=Sku("ProvisionedManaged", 90))) == 0
    assert left(mine, sku="GlobalProvisionedManaged") is None
    assert left(mine, location="westus") is None
    assert Rules.of(load_config(None, environ={})).units_left("ProvisionedManaged", "eastus2", directory()) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('sku = "ProvisionedManaged"\nunits = 1', "capacity[0].location"),
        ('location = "x"\nsku = "Standard"\nunits = 1', "capacity[0].sku"),
        ('location = "x"\nsku = "ProvisionedManaged"\nunits = -1', "capacity[0].units"),
        (
            'location = "x y"\nsku = "ProvisionedManaged"\nunits = 1\n[[capacity]]\nlocation = "XY"\n'
            'sku = "ProvisionedManaged"\nunits = 2',
            "capacity[1]: capacity[0] already says what 'XY' has of ProvisionedManaged",
        ),
    ],
)
def test_a_capacity_that_means_nothing_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f"[[capacity]]\n{text}\n")
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_config(path, environ={})
