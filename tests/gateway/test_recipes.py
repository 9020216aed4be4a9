from __future__ import annotations

from dataclasses import replace

import pytest

from vivavoce.config import AccountSettings, Config, DeploymentSettings, RecipeSettings
from vivavoce.gateway.deployments import Deployment
from vivavoce.gateway.recipes import Recipes
from vivavoce.gateway.resource import DeploymentRecord, Model, Sku
from vivavoce.gateway.store.declared import Declared

CONFIG = Config(
    more_accounts=(AccountSettings(name="bank", subscription="s", resource_group="g", location="l", tenant="t"),),
    deployments=(
        DeploymentSettings(name="voice", model="gpt-4o", version="1"),
        DeploymentSettings(name="voice", account="bank", model="gpt-4o", version="2", instructions="bank"),
        DeploymentSettings(name="mini", model="gpt-4o-mini", version="1"),
    ),
    recipes={
        "tuned": RecipeSettings(models=("*.ft-*",), language_model="mine", instructions="tuned", strict=False),
        "mini": RecipeSettings(models=("gpt-4o-mini-2", "*-mini")),
    },
)
RECIPES = Recipes(CONFIG)
RECORD = DeploymentRecord(account="/a", name="new", sku=Sku("Standard", 3), model=Model("m", "1"), recipe="tuned")


@pytest.mark.parametrize(
    ("name", "version", "recipe"),
    [
        ("gpt-4o-mini.ft-1", "1", "tuned"),
        ("gpt-4o-mini", "1", "mini"),
        ("gpt-4o", "1", "vivavoce/voice"),
        ("gpt-4o", "2", "bank/voice"),
        ("gpt-4o", "3", "vivavoce/voice"),
        ("gpt-5", "1", None),
    ],
)
def test_a_model_is_bound_to_the_first_that_does_its_work(name: str, version: str, recipe: str | None) -> None:
    assert RECIPES.bind(Model(name, version)) == recipe


def test_a_deployment_keeps_what_it_is_bound_to_as_long_as_that_is_there() -> None:
    assert RECIPES.work(RECORD) is CONFIG.recipes["tuned"]
    assert RECIPES.work(replace(RECORD, recipe="bank/voice")) is CONFIG.deployments[1]
    gone = replace(RECORD, recipe="gone", model=Model("gpt-4o", "2"))
    assert RECIPES.work(gone) is CONFIG.deployments[1]
    assert RECIPES.work(replace(RECORD, recipe="gone")) is None


def test_what_is_declared_is_bound_to_itself() -> None:
    declared = Declared(CONFIG)
    assert [RECIPES.work(one) for one in declared.deployments] == list(CONFIG.deployments)


def test_a_deployment_that_was_made_has_its_record_and_the_work_of_its_recipe() -> None:
    made = Deployment.of_record(RECORD, CONFIG.recipes["tuned"], "label")
    assert (made.name, made.account, made.label, made.model, made.version) == ("new", "/a", "label", "m", "1")
    assert (made.instructions, made.strict, made.engines["language_model"]) == ("tuned", False, "mine")
    assert (made.tokens_per_minute, made.requests_per_minute) == (3000, 18)


def test_what_a_declared_deployment_tells_its_model_is_its_own() -> None:
    """It may be of another account, and a session shows its instructions."""
    work = CONFIG.deployments[1]
    assert Deployment.of_record(replace(RECORD, declared=True), work, "").instructions == "bank"
    assert Deployment.of_record(RECORD, work, "").instructions == DeploymentSettings(name="x").instructions


def test_a_limit_of_requests_is_of_the_deployment_that_declares_it() -> None:
    settings = DeploymentSettings(name="voice", requests_per_minute=5)
    declared = replace(RECORD, declared=True)
    assert Deployment.of_record(declared, settings, "").requests_per_minute == 5
    assert Deployment.of_record(RECORD, settings, "").requests_per_minute == 18
