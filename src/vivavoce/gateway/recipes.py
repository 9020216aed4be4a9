"""What does the work of a deployment, by the name that its record binds."""

from __future__ import annotations

from vivavoce.config import Config, WorkSettings
from vivavoce.gateway.resource import DeploymentRecord, Model


class Recipes:
    """Those of the configuration: its recipes, and what its deployments are done by."""

    def __init__(self, config: Config) -> None:
        self._recipes = config.recipes
        self._declared = {
            f"{settings.account or config.resource.name}/{settings.name}": settings
            for settings in config.deployments
        }

    def bind(self, model: Model) -> str | None:
        """The one for a deployment of this model: the first recipe that names it, else the first deployment of it
        that is declared, of the same version if there is one; None where there is neither."""
        found = next((name for name, one in self._recipes.items() if one.serves(model.name, model.version)), None)
        if found is not None:
            return found
        same = [
            (name, one.version == model.version) for name, one in self._declared.items() if one.model == model.name
        ]
        same.sort(key=lambda one: not one[1])
        return same[0][0] if same else None

    def work(self, record: DeploymentRecord) -> WorkSettings | None:
        """What it is bound to; where the configuration has that no more, what would be bound now; None where that
        is nothing either."""
        return self._of(record.recipe) or self._of(self.bind(record.model))

    def _of(self, name: str | None) -> WorkSettings | None:
        return None if name is None else self._recipes.get(name) or self._declared.get(name)
